// The page works without this script, which makes it quicker to use.
'use strict';

const find = (id) => document.getElementById(id);

// The curl line has the address of this page, also behind a reverse proxy.
for (const element of document.querySelectorAll('[data-origin]')) {
  element.textContent = location.origin;
}

function copying(button, line, status) {
  button.hidden = false;
  button.addEventListener('click', async () => {
    try {
      await navigator.clipboard.writeText(line.textContent);
      status.textContent = 'Copied';
    } catch {
      // Without TLS, browsers do not let a page write to the clipboard.
      getSelection().selectAllChildren(line);
      status.textContent = 'Selected: copy it with Ctrl+C';
    }
  });
}

// Folds text as the service does: letter case and accents make no difference.
const PLAIN = { æ: 'ae', đ: 'd', ð: 'd', ħ: 'h', ı: 'i', ł: 'l', ø: 'o', œ: 'oe', ß: 'ss', ŧ: 't', þ: 'th', ς: 'σ' };
const folded = (text) => text.normalize('NFKD').replace(/[\u0300-\u036f]/g, '').toLowerCase()
  .replace(/[æđðħıłøœßŧþς]/g, (letter) => PLAIN[letter]);

// Cuts the list to the typed text.
function filtering(input, list, count) {
  const items = [...list.children].map((item) => ({ item, text: folded(item.querySelector('th').textContent) }));
  const all = count.textContent;
  input.addEventListener('input', () => {
    const sought = folded(input.value.trim());
    let shown = 0;
    for (const { item, text } of items) {
      item.hidden = !text.includes(sought);
      shown += item.hidden ? 0 : 1;
    }
    count.textContent = sought ? `${shown} of ${items.length} shown` : all;
  });
}

// Shows a date as soon as it is picked, and a typed one at Enter.
function submitting(date) {
  let typed = false;
  date.addEventListener('keydown', () => { typed = true; });
  date.addEventListener('pointerdown', () => { typed = false; });
  date.addEventListener('change', () => {
    if (!typed && find('customer').value) date.form.requestSubmit();
  });
}

// Reloads the page until the list is there, but not while its reader types.
function reloading(input) {
  setInterval(() => {
    const isTyping = document.activeElement === input || input.value !== input.defaultValue;
    if (!isTyping) location.reload();
  }, 3000);
}

const copy = find('copy');
if (copy) copying(copy, find('curl'), find('copied'));
const list = find('customers');
if (list && list.dataset.complete !== undefined) filtering(find('customer'), list, find('count'));
const date = find('date');
if (date) submitting(date);
if (document.querySelector('[data-reload]')) reloading(find('customer'));
