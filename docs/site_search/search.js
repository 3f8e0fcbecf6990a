// Search without a server: a page that was opened as a file may neither fetch an index nor start a worker,
// so that this script has both with it. lunr and `DOCUMENTS` are put before it by hook.py.
document.addEventListener("DOMContentLoaded", () => {
  const query = document.getElementById("mkdocs-search-query");
  const list = document.getElementById("mkdocs-search-results");
  const known = new Map(DOCUMENTS.map((one) => [one.location, one]));
  let index = null;

  function build() {
    index ??= lunr(function () {
      this.ref("location");
      this.field("title", { boost: 10 });
      this.field("text");
      // Words as they are: parts of error messages are looked up, "not" and "is" included.
      this.pipeline.remove(lunr.stemmer);
      this.pipeline.remove(lunr.stopWordFilter);
      DOCUMENTS.forEach((one) => this.add(one));
    });
    return index;
  }

  // All words must be there, each may go on; where nothing has all, whatever has any.
  function find(words) {
    const { REQUIRED, OPTIONAL } = lunr.Query.presence;
    const search = (presence) => build().query((q) => words.forEach((word) => {
      q.term(word, { presence, usePipeline: false, wildcard: lunr.Query.wildcard.TRAILING });
    }));
    const found = search(REQUIRED);
    return found.length ? found : search(OPTIONAL);
  }

  // Text from the whole query on, else from its longest word.
  function excerpt(text, words) {
    const wanted = [query.value.trim(), ...[...words].sort((a, b) => b.length - a.length)];
    const places = wanted.map((word) => text.toLowerCase().indexOf(word.toLowerCase()));
    const start = Math.max(0, (places.find((at) => at >= 0) ?? 0) - 60);
    return (start ? "… " : "") + text.slice(start, start + 200);
  }

  function entry(one, words) {
    const article = document.createElement("article");
    const link = document.createElement("a");
    link.href = `${base_url.replace(/\/$/, "")}/${one.location}`;
    const page = known.get(one.location.split("#")[0]);
    link.textContent = page && page !== one ? `${page.title}: ${one.title}` : one.title;
    const heading = document.createElement("h3");
    heading.append(link);
    const text = document.createElement("p");
    text.textContent = excerpt(one.text, words);
    article.append(heading, text);
    return article;
  }

  function show() {
    const words = lunr.tokenizer(query.value).map(String)
      .map((word) => word.replace(/^\W+|\W+$/g, "")).filter((word) => word.length > 1);
    const found = words.length ? find(words) : [];
    list.replaceChildren(...found.slice(0, 50).map((one) => entry(known.get(one.ref), words)));
    if (words.length && !found.length) list.textContent = list.dataset.noResultsText || "No results found";
  }

  query.form?.addEventListener("submit", (event) => event.preventDefault());
  query.addEventListener("input", show);
  const asked = new URLSearchParams(window.location.search).get("q");
  if (asked) {
    query.value = asked;
    show();
  }
});
