// Names the search dialog for screen readers, and lets the keyboard scroll wide code and tables.
addEventListener("load", () => {
  document.querySelector('.md-search[role="dialog"]')?.setAttribute("aria-label", "Search")
  const reachable = () => {
    for (const one of document.querySelectorAll(".md-typeset pre > code, .md-typeset__scrollwrap, .md-typeset__table")) {
      one.setAttribute("tabindex", "0")
    }
  }
  reachable()
  new MutationObserver(reachable).observe(document.body, { childList: true, subtree: true })
})
