// What is asked stands in the address, as #q=sigmoid&verdict=refuted&note=1; the page shows what fits.
const form = document.getElementById("filter");
const claims = [...document.querySelectorAll("#rows tr")].map(row => {
  const card = document.getElementById(row.dataset.card);
  const said = [...row.cells].slice(1).map(cell => cell.textContent);
  const text = [...said, card ? card.textContent : ""].join(" ").toLowerCase();
  return { row, card, text, places: lines(row.cells[0].textContent) };
});
const blocks = [...document.querySelectorAll(".question, #corrections, #claims")];

// "1:54-56 3:337a" are two places: lines 54 to 56 of note 1, and of note 3 a part of line 337.
function lines(text) {
  return [...text.matchAll(/(\d+):([\da-z,-]+)/g)].flatMap(([, note, said]) =>
    [...said.matchAll(/(\d+)([a-z]?)(?:-(\d+)[a-z]?)?/g)].map(([, low, part, high]) =>
      ({ note, low: +low, high: +(high || low), part: high ? "" : part })));
}

function fits(claim, word) {
  if (claim.text.includes(word)) return true;
  return lines(word).some(one => claim.places.some(own => own.note === one.note
    && own.low <= one.high && one.low <= own.high && (!own.part || !one.part || own.part === one.part)));
}

function show() {
  const asked = new URLSearchParams(location.hash.includes("=") ? location.hash.slice(1) : "");
  const [q, verdict, note] = ["q", "verdict", "note"].map(name => asked.get(name) || "");
  form.q.value = q;
  form.verdict.value = verdict;
  form.note.value = note;
  const places = q.toLowerCase().replace(/note (\d),? lines? (\d+)/g, "$1:$2"); // as the cards say it
  const words = places.split(/[\s;]+|,(?=\s|$)/).filter(Boolean);
  let count = 0, corrected = 0;
  for (const claim of claims) {
    const found = words.every(word => fits(claim, word))
      && (!verdict || claim.row.dataset.verdict === verdict)
      && (!note || claim.row.dataset.notes.split(" ").includes(note));
    claim.row.hidden = !found;
    if (claim.card) claim.card.hidden = !found;
    count += found;
    corrected += found && claim.card ? 1 : 0;
  }
  for (const block of blocks) block.hidden = !block.querySelector(".claim:not([hidden]), #rows tr:not([hidden])");
  const named = [q.trim() && `“${q.trim()}”`, verdict, note && `note ${note}`].filter(Boolean).join(", ");
  const of = count === claims.length ? "" : ` of ${claims.length}`;
  document.getElementById("shown").textContent = `${count}${of} claim${count === 1 && !of ? "" : "s"}`
    + (named ? `: ${named}` : "") + (count && corrected < count ? `; ${corrected} of them corrected` : "");
  document.getElementById("none").hidden = count > 0;
}

// Letters typed one after another are one step back.
let typing = false;
form.addEventListener("input", event => {
  const asked = [...new FormData(form)].filter(([, value]) => value);
  const address = "#" + (new URLSearchParams(asked).toString().replaceAll("%3A", ":") || "q=");
  const goes_on = typing && event.target === form.q;
  typing = event.target === form.q;
  if (goes_on) location.replace(address);
  else location.hash = address;
});
form.addEventListener("change", () => { typing = false; });
form.addEventListener("submit", event => event.preventDefault());
addEventListener("hashchange", show);
form.hidden = false;
show();
