// Orders a seat, on a connection that may break at any time: `node buy.mts http://localhost:8000`.
//
// `schema.d.ts` is what openapi-typescript has made of the API's document.
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

const client = createClient<paths>({ baseUrl: process.argv[2] ?? "http://localhost:8000", fetch: retry });
const username = `ana-${crypto.randomUUID().slice(0, 8)}`;
const password = "correct horse 9";
await good(client.POST("/users/register", { body: { username, email: `${username}@example.com`, password } }));
const form = { "Content-Type": "application/x-www-form-urlencoded" };
const signedIn = await good(client.POST("/auth/token", { body: { username, password }, headers: form }));
client.use({
  onRequest({ request }) {
    request.headers.set("Authorization", `Bearer ${signedIn.access_token}`);
  },
});

const [course] = (await good(client.GET("/courses"))).items;
if (!course) throw new Error("There is no course.");
let order = await good(client.POST("/orders", { body: { course_id: course.id, expected_price_cents: course.price_cents } }));
while (order.status === "pending") {
  await pause(1000);
  order = await good(client.GET("/orders/{order_id}", { params: { path: { order_id: order.id } } }));
}
const { items } = await good(client.GET("/orders"));
console.log(JSON.stringify({ order: order.status, orders: items.length }));
