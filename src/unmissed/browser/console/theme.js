// Sets the theme before the first paint. It is no module, because modules run after it.
{
  const KEY = "unmissed.console.theme";
  const THEMES = ["auto", "light", "dark"];
  const root = document.documentElement;
  root.dataset.theme = localStorage.getItem(KEY) ?? "auto";

  const label = () => `Theme: ${root.dataset.theme}`;

  document.addEventListener("DOMContentLoaded", () => {
    const button = /** @type {HTMLButtonElement} */ (document.getElementById("theme"));
    const text = /** @type {HTMLSpanElement} */ (button.querySelector("span"));
    text.textContent = label();
    button.addEventListener("click", () => {
      const theme = THEMES[(THEMES.indexOf(root.dataset.theme ?? "") + 1) % THEMES.length];
      root.dataset.theme = theme;
      localStorage.setItem(KEY, theme);
      text.textContent = label();
    });
  });
}
