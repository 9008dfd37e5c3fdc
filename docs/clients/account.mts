// A day of an account, on a connection that may break at any time: `node account.mts http://localhost:8000`.
//
// It reads its mails at `/mail`, where `make run` shows them. `schema.d.ts` is what openapi-typescript has made of the
// API's document.
import createClient from "openapi-fetch";
import { retry } from "./retries.mts";
import type { paths } from "./schema.d.ts";

const pause = (ms: number) => new Promise((done) => setTimeout(done, ms));

// Throws for a problem.
async function good<T>(asked: Promise<{ data?: T; error?: { detail: string } }>): Promise<T> {
  const { data, error } = await asked;
  if (error || data === undefined) throw new Error(error?.detail ?? "There was no answer.");
  return data;
}

// A token works once. Asked again it answers 422, for then it is used up.
async function done(asked: Promise<{ response: Response }>): Promise<void> {
  const { status } = (await asked).response;
  if (![202, 204, 422].includes(status)) throw new Error(`It answered ${status}.`);
}

const api = process.argv[2] ?? "http://localhost:8000";
const client = createClient<paths>({ baseUrl: api, fetch: retry });
const username = `ana-${crypto.randomUUID().slice(0, 8)}`;
const [before, after] = [`${username}@example.com`, `${username}@example.org`];
const [first, second] = ["correct horse 9", "battery staple 7"];

// The token of the newest link to this page, once its mail has come.
async function mailed(address: string, page: string): Promise<string> {
  const link = new RegExp(`to ${address}</p><pre>(?:(?!</pre>)[^])*?/pages/${page}\\?token=([\\w-]+)`);
  for (;;) {
    const token = link.exec(await (await retry(new Request(`${api}/mail`))).text())?.[1];
    if (token) return token;
    await pause(200);
  }
}

const form = { "Content-Type": "application/x-www-form-urlencoded" };
async function signedIn(device: string, password: string) {
  const { access_token } = await good(client.POST("/auth/token", { body: { username, password, device }, headers: form }));
  return { headers: { Authorization: `Bearer ${access_token}` } };
}

async function verify(address: string) {
  await done(client.POST("/auth/email-verification/confirm", { body: { token: await mailed(address, "verify-email") } }));
}

async function devices(of: { headers: { Authorization: string } }) {
  const { items } = await good(client.GET("/auth/sessions", of));
  return [...new Set(items.map(({ device }) => device))].sort();
}

await good(client.POST("/users/register", { body: { username, email: before, password: first } }));
await verify(before);
const phone = await signedIn("phone", first);
let laptop = await signedIn("laptop", first);
const told: Record<string, unknown> = { devices: await devices(laptop) };

await done(client.POST("/auth/password-reset", { body: { email: before } }));
const body = { token: await mailed(before, "reset-password"), new_password: second };
await done(client.POST("/auth/password-reset/confirm", { body }));
laptop = await signedIn("laptop", second);
told["after the reset"] = await devices(laptop);
told.phone = (await client.GET("/users/me", phone)).response.status;

await good(client.PATCH("/users/me", { body: { email: after }, ...laptop }));
await verify(after);
const me = await good(client.GET("/users/me", laptop));
told.moved = me.email === after && me.email_verified;
// Asked again it answers 401, for then nobody is there any more who could ask.
told.erased = [202, 401].includes((await client.DELETE("/users/me", laptop)).response.status);
told.over = (await client.POST("/auth/token", { body: { username, password: second }, headers: form })).response.status;
console.log(JSON.stringify(told));
