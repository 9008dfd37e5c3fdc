// A day in a client's life, on a connection that may break at any time: `node day.mts http://localhost:8000`.
//
// `schema.d.ts` is what openapi-typescript has made of the API's document.
import createClient from "openapi-fetch";
import { follow } from "./follow.mjs";
import { retry } from "./retries.mts";
import type { paths } from "./schema.d.ts";

const pause = (ms: number) => new Promise((done) => setTimeout(done, ms));

// Throws for a problem.
async function good<T>(asked: Promise<{ data?: T; error?: { detail: string } }>): Promise<T> {
  const { data, error } = await asked;
  if (error || data === undefined) throw new Error(error?.detail ?? "There was no answer.");
  return data;
}

const api = process.argv[2] ?? "http://localhost:8000";
const client = createClient<paths>({ baseUrl: api, fetch: retry });
const username = `ana-${crypto.randomUUID().slice(0, 8)}`;
const password = "correct horse 9";
await good(client.POST("/users/register", { body: { username, email: `${username}@example.com`, password } }));
const form = { "Content-Type": "application/x-www-form-urlencoded" };
const signedIn = await good(client.POST("/auth/token", { body: { username, password }, headers: form }));
const token = signedIn.access_token;
client.use({
  onRequest({ request }) {
    request.headers.set("Authorization", `Bearer ${token}`);
  },
});

const { id } = await good(client.POST("/conversations", { body: { title: "Au marché" } }));
const seen: string[] = [];
const following = follow({
  api,
  token,
  conversationId: id,
  after: 0,
  onMessage: (message: { content: string }) => seen.push(message.content),
});
const path = { conversation_id: id };
for (const content of ["Bonjour !", "Une baguette, s'il vous plaît.", "Merci, au revoir."]) {
  const message = { id: crypto.randomUUID(), content }; // its own id: sent again it is the same message
  await good(client.POST("/conversations/{conversation_id}/messages", { params: { path }, body: message }));
  while (seen.at(-1) !== content) await pause(20);
}

const told: Record<string, unknown> = { seen };
const exported = await good(client.GET("/users/me/export"));
told.exported = exported.conversations.map(({ messages }) => messages.map(({ content }) => content));
// Asked again it answers 401, for then nobody is there any more who could ask.
told.erased = [202, 401].includes((await client.DELETE("/users/me")).response.status);
told.over = await following;
console.log(JSON.stringify(told));
