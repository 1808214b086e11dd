// Speaking with the API. The key is kept for this tab alone and travels in a header, never in an address.

const PLACE = "tocsin.key";

export const key = {
  get: () => sessionStorage.getItem(PLACE),
  keep: (value) => sessionStorage.setItem(PLACE, value),
  forget: () => sessionStorage.removeItem(PLACE),
};

/** What the API answered instead of what was asked for. `status` is 0 when it did not answer at all. */
export class Problem extends Error {
  constructor(status, document) {
    super(document?.detail ?? document?.title ?? (status ? `The server answered ${status}.` : "The server does not answer."));
    this.status = status;
    this.code = document?.code ?? null;
  }
}

/** The answer to a GET. `query` may leave values out with null. Throws Problem. */
export async function get(path, query = {}, { signal } = {}) {
  const url = new URL(path, location.origin);
  for (const [name, value] of Object.entries(query)) {
    if (value !== null && value !== undefined) url.searchParams.set(name, value);
  }
  let response;
  try {
    response = await fetch(url, { headers: { Authorization: `Bearer ${key.get()}` }, cache: "no-store", signal });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(0, null);
  }
  const document = await response.json().catch(() => null);
  if (!response.ok || document === null) throw new Problem(response.status, document);
  return document;
}
