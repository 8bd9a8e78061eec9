// A file of the page that cannot be loaded (a network that breaks off, a new version of the server)
// leaves a part of the page empty for good. The page is loaded again, once, and says so.
// And the document is in the language of what is drawn, which a visitor can change.

{
  const KEY = "lookalike-loaded-again"; // when, in ms
  const DUE = "lookalike-notice-due";
  const LEAST_MS = 60_000; // between two times that the page is loaded again by itself
  const texts = TEXTS; // in the language of the document

  const say = (text, urgent) => {
    const draw = () => {
      document.querySelector(".lookalike-notice")?.remove();
      const notice = document.createElement("div");
      notice.className = "lookalike-notice";
      notice.setAttribute("role", urgent ? "alert" : "status");
      notice.append(text);
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = urgent ? texts.reload : texts.close;
      button.onclick = () => (urgent ? location.reload() : notice.remove());
      notice.append(button);
      document.body.append(notice);
    };
    if (document.body) draw();
    else document.addEventListener("DOMContentLoaded", draw);
  };

  let failed = false;
  const fail = () => {
    if (failed) return;
    failed = true;
    let again = false;
    try { // without storage the page would be loaded again without end
      again = Date.now() - Number(sessionStorage.getItem(KEY) ?? 0) > LEAST_MS;
      sessionStorage.setItem(KEY, Date.now());
      sessionStorage.setItem(DUE, "yes");
    } catch {
      again = false;
    }
    if (again) location.reload();
    else say(texts.still, true);
  };

  // A module that is loaded later, as Vite reports it.
  addEventListener("vite:preloadError", fail);
  // The modules and style sheets of the document itself.
  addEventListener("error", (event) => {
    const file = event.target;
    if (file instanceof HTMLScriptElement || file?.rel === "stylesheet") fail();
  }, true);
  addEventListener("load", () => {
    try {
      const due = sessionStorage.getItem(DUE);
      sessionStorage.removeItem(DUE);
      if (due && !failed) say(texts.again, false);
    } catch { /* no storage */ }
  });

  const YEAR_S = 365 * 24 * 3600;
  let drawn = [];
  const follow = () => {
    const choice = document.querySelector('[class*="st-key-language-in-"]');
    const found = choice?.className.match(/st-key-language-in-(\w+?)(-chosen)?(?=\s|$)/);
    if (!found || (drawn[0] === found[0])) return;
    drawn = found;
    document.documentElement.lang = found[1];
    if (found[2]) {
      document.cookie = `lookalike-language=${found[1]}; path=/; max-age=${YEAR_S}; SameSite=Lax`;
    }
  };
  // The signs that explain a field: their label is Streamlit's own, in English.
  const HELP = "Help for ";
  const translate = () => {
    for (const sign of document.querySelectorAll(`[aria-label^="${HELP}"]`)) {
      const name = sign.getAttribute("aria-label").slice(HELP.length);
      sign.setAttribute("aria-label", texts.help.replace("{name}", () => name));
    }
  };
  // What Streamlit says of an address without a page, and its buttons that close a dialog.
  const NO_PAGE = /^The page that you have requested does not seem to exist/;
  const translateDialogs = () => {
    for (const button of document.querySelectorAll('[role="dialog"] [aria-label="Close"]')) {
      button.setAttribute("aria-label", texts.close);
    }
    for (const title of document.querySelectorAll('[role="dialog"] > h2')) {
      const text = title.nextElementSibling?.firstElementChild?.firstChild;
      if (!NO_PAGE.test(text?.data ?? "")) continue;
      title.firstChild.data = texts.notFound;
      text.data = texts.noPage;
    }
  };
  const changed = () => { follow(); translate(); translateDialogs(); };
  new MutationObserver(changed).observe(document, { subtree: true, childList: true });
}
