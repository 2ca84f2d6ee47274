// Talks with the server that the page came from, and with no other.

let key = "";

export function useKey(secret) {
  key = secret;
}

export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

async function send(path, options = {}) {
  const headers = { ...(options.body ? { "content-type": "application/json" } : {}), ...(key ? { authorization: `Bearer ${key}` } : {}) };
  const response = await fetch(path, { ...options, headers });
  if (response.ok) return response;
  const told = await response.json().catch(() => ({}));
  throw new Refused(response.status, told.error?.message ?? `the server says ${response.status}`);
}

export async function readFront() {
  return (await send("/front")).json();
}

// Yields the chunks of an answer.
export async function* ask(body, signal) {
  const response = await send("/v1/chat/completions", { method: "POST", body: JSON.stringify({ ...body, stream: true }), signal });
  let rest = "";
  for await (const text of decoded(response.body)) {
    const events = (rest + text).split("\n\n");
    rest = events.pop();
    for (const event of events) {
      const data = event.replace(/^data: /, "");
      if (data === "[DONE]") return;
      const chunk = JSON.parse(data);
      if (chunk.error) throw new Refused(500, chunk.error.message);
      yield chunk;
    }
  }
  throw new Refused(500, "the answer broke off");
}

async function* decoded(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      yield value;
    }
  } finally {
    await reader.cancel();
  }
}
