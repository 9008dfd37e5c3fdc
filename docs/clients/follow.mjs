// Follow a conversation: each message once and in order, however often the connection is cut. For browsers and Node.
//
//     const status = await follow({ api: "https://api.example.com", token, conversationId, onMessage: show });

const LONGEST_WAIT_MS = 30_000;

// Gives `onMessage` each message that follows number `after`, or that comes from now on. Returns the status that says
// why it is over: 401 (sign in again) or 404. Throws for another refusal, and what a handler throws; a message counts
// as handled when its handler's promise is fulfilled.
//
// `onReset` gets `{last_seq}` when the conversation has fewer messages than `after`, as after a restore from a backup:
// read it anew up to that number. After `idleMs` without a byte the connection counts as dead; a sign of life comes every
// 15 s at the latest. `signal`, of an AbortController of yours, ends it with an AbortError.
/**
 * @param {{api?: string, token: string, conversationId: string, onMessage: (message: any) => unknown,
 *   onReset?: (reset: {last_seq: number}) => unknown, after?: number | null, idleMs?: number, signal?: AbortSignal}} options
 */
export async function follow({ api = "", token, conversationId, onMessage, onReset, after = null, idleMs = 30_000, signal }) {
  for (let failures = 0, retry = 1000; ; failures = Math.min(failures + 1, 10)) {
    let wait = 0;
    const connection = new AbortController();
    const alive = (step) => within(idleMs, connection, step);
    const signals = signal ? [signal, connection.signal] : [connection.signal];
    const headers = { Authorization: `Bearer ${token}` };
    if (after !== null) headers["Last-Event-ID"] = String(after);
    let handling = false;
    try {
      const answer = await alive(() =>
        fetch(`${api}/conversations/${conversationId}/events`, { headers, signal: AbortSignal.any(signals) }),
      );
      if ([401, 404].includes(answer.status)) return answer.status;
      wait = 1000 * (Number(answer.headers.get("Retry-After")) || 0);
      if (!answer.ok && answer.status !== 429 && answer.status < 500) {
        handling = true;
        throw new Error(`The stream was refused: ${answer.status}`);
      }
      for await (const event of answer.ok ? events(answer.body, alive) : []) {
        handling = true;
        if (event.event === "message") await onMessage(JSON.parse(event.data));
        if (event.event === "reset") await onReset?.(JSON.parse(event.data));
        handling = false;
        [failures, after] = [0, Number(event.id)];
        retry = Number(event.retry ?? retry);
      }
    } catch (error) {
      if (handling || signal?.aborted) throw error;
    } finally {
      connection.abort();
    }
    const backoff = Math.min(LONGEST_WAIT_MS, retry * 2 ** failures) * (0.5 + Math.random() / 2);
    await new Promise((done) => setTimeout(done, Math.max(wait, backoff)));
  }
}

// What `step` gives. Ends the connection when that takes too long.
async function within(milliseconds, connection, step) {
  const timer = setTimeout(() => connection.abort(), milliseconds);
  try {
    return await step();
  } finally {
    clearTimeout(timer);
  }
}

// The fields of each event that came whole.
async function* events(body, alive) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  for (let text = ""; ; ) {
    const { done, value } = await alive(() => reader.read());
    if (done) return;
    const blocks = (text + value).split("\n\n");
    text = blocks.pop();
    for (const block of blocks) {
      const lines = block.split("\n").filter((line) => line && !line.startsWith(":")); // a comment is a sign of life
      if (lines.length) yield Object.fromEntries(lines.map((line) => line.split(/: (.*)/, 2)));
    }
  }
}
