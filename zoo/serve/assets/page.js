const form = document.getElementById('form'), drop = document.getElementById('drop');
const picker = document.getElementById('file'), status = document.getElementById('status');
const answers = document.getElementById('answers');
const SHOWN = 50;
const waiting = [];
let working = false;

const make = (name, text = '', type = '') => {
  const made = document.createElement(name);
  if (text) made.textContent = text;  // never as HTML: names are whatever their owners chose
  if (type) made.className = type;
  return made;
};

function card(file) {
  const item = make('li'), picture = new Image(), side = make('div');
  const name = file.name || 'pasted image';
  picture.alt = '';
  picture.addEventListener('load', () => {
    picture.classList.toggle('small-image', picture.naturalWidth < 112);
    URL.revokeObjectURL(picture.src);
  });
  picture.addEventListener('error', () => {
    URL.revokeObjectURL(picture.src);
    picture.removeAttribute('src');  // an empty frame rather than a broken picture
  });
  picture.src = URL.createObjectURL(file);
  side.append(make('h2', name));
  item.append(picture, side);
  answers.prepend(item);
  while (answers.children.length > SHOWN) answers.lastChild.remove();
  return side;
}

function table(classes) {
  const made = make('table'), rows = make('tbody');
  for (const {name, probability} of classes) {
    const row = make('tr'), title = make('th', name), bar = make('td'), progress = make('progress');
    title.scope = 'row';
    progress.max = 1;
    progress.value = probability;
    progress.setAttribute('aria-hidden', 'true');
    bar.append(progress);
    row.append(title, bar, make('td', `${(100 * probability).toFixed(1)} %`));
    rows.append(row);
  }
  made.append(rows);
  return made;
}

function said(found) {
  const parts = found.map(({name, probability}) => `${name}, ${(100 * probability).toFixed(1)} %`);
  return parts.join('; ') || 'no class reaches its threshold';
}

async function work() {
  if (working) return;
  working = true;
  while (waiting.length) {
    const file = waiting.shift(), side = card(file), name = file.name || 'the pasted image';
    const more = waiting.length ? `, ${waiting.length} to go` : '';
    status.textContent = `Looking at ${name}${more}`;
    try {
      const {classes, labels} = await ask(file);
      const shown = said(labels || classes.slice(0, 1));
      if (labels) side.append(make('p', shown));
      side.append(table(classes));
      status.textContent = `${name}: ${shown}${more}`;
    } catch (error) {
      side.append(make('p', error.message, 'error'));
      status.textContent = `${name}: ${error.message}${more}`;
    }
  }
  working = false;
}

function take(files) {
  const found = [...files];
  if (!found.length) status.textContent = 'That holds no file: save the image first, then drop it here.';
  waiting.push(...found);
  work();
}

picker.addEventListener('change', () => { take(picker.files); picker.value = ''; });
form.addEventListener('submit', event => event.preventDefault());
for (const name of ['dragenter', 'dragover']) {
  document.addEventListener(name, event => { event.preventDefault(); drop.classList.add('over'); });
}
document.addEventListener('dragleave', event => { if (!event.relatedTarget) drop.classList.remove('over'); });
document.addEventListener('drop', event => {
  event.preventDefault();
  drop.classList.remove('over');
  take(event.dataTransfer.files);
});
document.addEventListener('paste', event => {
  if (event.clipboardData.files.length) take(event.clipboardData.files);
});
