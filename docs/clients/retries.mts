// Send a request until it is answered, through lost answers, limits and outages. What it asks for is done once.
//
//     const client = createClient<paths>({ baseUrl: "https://api.example.com", fetch: retry });

const TRIES = 8;
const LONGEST_WAIT_SECONDS = 30;
const ANSWER_WITHIN_MS = 10_000;

// Sends the same request again when there is no answer, or one with `Retry-After`, and waits as long as that says. A POST
// without an `Idempotency-Key` gets one, the same for all its tries: by it the server knows it again.
//
// After eight tries, or when it should wait for longer than 30 s, what has come is given: the last answer, or the error.
// It reads each answer to its end: a stream of events needs a client of its own (follow.mjs).
export async function retry(request: Request): Promise<Response> {
  if (request.method === "POST" && !request.headers.has("Idempotency-Key")) {
    request.headers.set("Idempotency-Key", crypto.randomUUID());
  }
  for (let failures = 0; failures < TRIES - 1; failures++) {
    let wait = Math.min(LONGEST_WAIT_SECONDS, 0.5 * 2 ** failures) * (0.5 + Math.random() / 2);
    try {
      const answer = await send(request);
      const field = answer.headers.get("Retry-After") ?? "";
      const seconds = /^\d+$/.test(field) ? Number(field) : (Date.parse(field) - Date.now()) / 1000; // proxies send dates
      if (!(seconds <= LONGEST_WAIT_SECONDS)) return answer; // nor where it says nothing
      wait = Math.max(wait, seconds);
    } catch (error) {
      if (request.signal.aborted) throw error; // else nobody knows whether it was done
    }
    await new Promise((done) => setTimeout(done, 1000 * wait));
  }
  return send(request);
}

async function send(request: Request): Promise<Response> {
  const signal = AbortSignal.any([request.signal, AbortSignal.timeout(ANSWER_WITHIN_MS)]);
  const answer = await fetch(request.clone(), { signal });
  const body = await answer.arrayBuffer(); // the connection may break in the middle of it
  return new Response(body.byteLength ? body : null, answer);
}
