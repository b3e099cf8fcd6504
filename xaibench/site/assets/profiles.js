// Copy what a block holds. Where the browser gives a page from a folder no clipboard, the old command is tried, and where that
// fails, too, the text is selected and the reader told what to press.
(function () {
  "use strict";

  function select(element) {
    var range = document.createRange(), selection = getSelection();
    range.selectNodeContents(element);
    selection.removeAllRanges();
    selection.addRange(range);
  }

  function byCommand(element) {
    select(element);
    try { return document.execCommand("copy"); } catch (e) { return false; }
  }

  document.querySelectorAll("button[data-copy]").forEach(function (button) {
    var element = document.getElementById(button.dataset.copy), status = button.parentNode.querySelector("[role=status]");
    button.hidden = false;
    function say(done) { status.textContent = done ? "Copied." : "Selected: press Ctrl+C, or Cmd+C."; }
    button.addEventListener("click", function () {
      status.textContent = "";
      if (!navigator.clipboard) { say(byCommand(element)); return; }
      navigator.clipboard.writeText(element.textContent).then(function () { say(true); }, function () { say(byCommand(element)); });
    });
  });
})();
