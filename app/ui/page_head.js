// A file of the page that cannot be loaded (a network that breaks off, a new version of the server)
// leaves a part of the page empty for good. The page is loaded again, once, and says so.

{
  const KEY = "lookalike-loaded-again"; // when, in ms
  const DUE = "lookalike-notice-due";
  const LEAST_MS = 60_000; // between two times that the page is loaded again by itself
  const AGAIN = "A file of this page could not be loaded, so the page was loaded again.";
  const STILL = "A file of this page cannot be loaded. Check the connection, then load the page again.";

  const say = (text, urgent) => {
    const draw = () => {
      document.querySelector(".lookalike-notice")?.remove();
      const notice = document.createElement("div");
      notice.className = "lookalike-notice";
      notice.setAttribute("role", urgent ? "alert" : "status");
      notice.append(text);
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = urgent ? "Load again" : "Close";
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
    else say(STILL, true);
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
      if (due && !failed) say(AGAIN, false);
    } catch { /* no storage */ }
  });
}
