// Requests to the server of this page; its address holds the token.

/** What the server refused, in its own words; `detail` is a hidden text, where there is one. */
export class Refusal extends Error {
  constructor(content) {
    super(content.error);
    this.detail = content.detail;
  }
}

async function answered(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refusal({ error: "the server of this page has stopped: start axes explore again" });
  }
  if (response.ok) return response;
  const text = await response.text();
  let content = { error: text };
  try {
    content = JSON.parse(text);
  } catch {
    // A line of text, as it is.
  }
  throw new Refusal(content);
}

export async function get(path, parameters = {}, signal = undefined) {
  const given = Object.entries(parameters).filter(([, value]) => value !== null && value !== undefined && value !== "");
  const query = new URLSearchParams(given).toString();
  return (await answered(query ? `${path}?${query}` : path, { signal })).json();
}

export async function post(path, body, signal = undefined) {
  return answered(path, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
    signal,
  });
}
