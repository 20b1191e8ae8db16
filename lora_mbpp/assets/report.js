// A report or the index: one switch, where there is one, shows code, machinery and printed progress too; a link into what is folded unfolds it.
const all = document.getElementById('everything');

function showAll() {
  document.body.classList.toggle('everything', all.checked);
  document.querySelectorAll('details.code, details.chapter').forEach(part => { part.open = all.checked; });
}

function unfold() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  for (let part = target; part; part = part.parentElement) if (part.tagName === 'DETAILS') part.open = true;
  if (target && target.closest('.machinery') && all && !all.checked) { all.checked = true; showAll(); }
  if (target) target.scrollIntoView();
}

if (all) all.addEventListener('change', showAll);
addEventListener('hashchange', unfold);
if (innerWidth >= 1100) document.querySelectorAll('details.contents').forEach(part => { part.open = true; });
unfold();
