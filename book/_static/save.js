// The download button saves the chapter instead of opening its text.
// From a server, the attribute `download` is enough. A page opened as a file may not read or save its neighbours, but
// may run them: so a script beside the chapter hands its text over.
document.addEventListener("DOMContentLoaded", () => {
  for (const link of document.querySelectorAll("a.btn-download-source-button")) {
    link.download = "";
    link.removeAttribute("target");
    if (location.protocol === "file:") {
      link.addEventListener("click", (event) => {
        event.preventDefault();
        const script = document.createElement("script");
        script.src = `${link.href}.js`;
        script.onload = () => script.remove();
        document.head.append(script);
      });
    }
  }
});

function saveCopy(name, text) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "application/x-ipynb+json" }));
  link.download = name;
  link.click();
  URL.revokeObjectURL(link.href);
}
