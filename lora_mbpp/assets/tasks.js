// The page of tasks: words, change and verdict choose which tasks are shown; an address like #task-11 opens that task,
// one like #change=gained:r=8 sets a filter.
const field = name => document.getElementById(name);
const tasks = [...document.querySelectorAll('details.task')];
const texts = tasks.map(task => task.textContent.toLowerCase());

function changed(task, wanted) {
  if (!wanted) return true;
  if (wanted === 'differ') return task.dataset.differ === 'yes';
  const [kind, rank] = wanted.split(':');
  const ranks = (task.dataset[kind] || '').split(' ').filter(Boolean);
  return rank ? ranks.includes(rank) : ranks.length > 0;
}

function filter() {
  const words = field('words').value.toLowerCase().split(/\s+/).filter(Boolean);
  const change = field('change').value, verdict = field('verdict').value;
  let shown = 0;
  tasks.forEach((task, i) => {
    const fits = words.every(word => texts[i].includes(word)) && changed(task, change) &&
      (!verdict || task.dataset.verdicts.split(' ').includes(verdict));
    task.classList.toggle('hidden', !fits);
    shown += fits;
  });
  field('count').textContent = `${shown} of ${tasks.length} tasks`;
}

function followAddress() {
  const [name, value] = decodeURIComponent(location.hash.slice(1)).split(/=(.*)/s);
  if (value !== undefined && field(name)) {
    field(name).value = value;
    filter();
    return;
  }
  const task = field(name);
  if (task && task.tagName === 'DETAILS') {
    task.classList.remove('hidden');
    task.open = true;
    task.scrollIntoView();
  }
}

for (const name of ['words', 'change', 'verdict']) field(name).addEventListener('input', filter);
field('diff').addEventListener('change', event => document.body.classList.toggle('with-diff', event.target.checked));
addEventListener('hashchange', followAddress);
filter();
followAddress();
