// What a page keeps in the address, after #.

/** The link to a statement on the page of SQL; values in it are quoted by `literal`. */
export const sqlLink = (sql) => `#/sql?${new URLSearchParams({ sql })}`;
export const literal = (value) => `'${value.replaceAll("'", "''")}'`;

/** Note the page's choices in the address, so that reloading and bookmarks keep them. */
export function remember(name, given) {
  const kept = Object.entries(given).filter(([, value]) => value !== null && value !== undefined && value !== "");
  history.replaceState(null, "", `#/${name}?${new URLSearchParams(kept)}`);
}

let waiting = 0;

/** The same for choices that change by pointer or key many times a second; a browser counts changes of the address. */
export function rememberSoon(name, given) {
  clearTimeout(waiting);
  waiting = setTimeout(() => location.hash.startsWith(`#/${name}?`) && remember(name, given), 150);
}
