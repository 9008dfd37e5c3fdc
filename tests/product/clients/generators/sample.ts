// What a client may write, and what the compiler must refuse: an error that is expected and does not come is one too.
import createClient from "openapi-fetch";
import type { components, paths } from "./schema.d.ts";

const client = createClient<paths>({ baseUrl: "http://localhost:8000" });

export const message: components["schemas"]["NewMessage"] = { content: "Bonjour !" }; // what has a default may be left out

export async function read(id: string): Promise<string> {
  const { data, error, response } = await client.GET("/conversations/{conversation_id}", {
    params: { path: { conversation_id: id }, query: { messages: 5 } },
  });
  if (error) return `${error.type} ${error.detail} ${response.headers.get("Retry-After")}`;
  return data.messages.map(({ seq, content }) => `${seq}: ${content}`).join();
}

// @ts-expect-error: the content is missing
export const empty: components["schemas"]["NewMessage"] = {};

// @ts-expect-error: there is no such level
export const level: components["schemas"]["Registration"]["cefr_level"] = "D1";

// @ts-expect-error: there is no such path
client.GET("/conversation");

// @ts-expect-error: what may be left out is not nullable
client.GET("/conversations", { params: { query: { cursor: null } } });
