// What a page keeps in the address, after #.

/** Note the page's choices in the address, so that reloading and bookmarks keep them. */
export function remember(name, given) {
  const kept = Object.entries(given).filter(([, value]) => value !== null && value !== undefined && value !== "");
  history.replaceState(null, "", `#/${name}?${new URLSearchParams(kept)}`);
}
