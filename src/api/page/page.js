// The page works without this; with it, it is quicker to use.
'use strict';

const find = (id) => document.getElementById(id);

// The line is of the address that this page was reached by, behind a proxy too.
for (const element of document.querySelectorAll('[data-origin]')) {
  element.textContent = location.origin;
}

function copying(button, line, told) {
  button.hidden = false;
  button.addEventListener('click', async () => {
    try {
      await navigator.clipboard.writeText(line.textContent);
      told.textContent = 'Copied';
    } catch {
      // Browsers let no page without TLS write to the clipboard.
      getSelection().selectAllChildren(line);
      told.textContent = 'Selected: copy it with Ctrl+C';
    }
  });
}

// As the service folds text: letter case and accents make no difference.
const PLAIN = { æ: 'ae', đ: 'd', ð: 'd', ħ: 'h', ı: 'i', ł: 'l', ø: 'o', œ: 'oe', ß: 'ss', ŧ: 't', þ: 'th', ς: 'σ' };
const folded = (text) => text.normalize('NFKD').replace(/[\u0300-\u036f]/g, '').toLowerCase()
  .replace(/[æđðħıłøœßŧþς]/g, (letter) => PLAIN[letter]);

// The list that is shown is cut to what is being typed.
function filtering(input, list, count) {
  const items = [...list.children].map((item) => ({ item, text: folded(item.textContent) }));
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

// A date that was picked is shown at once; one that is being typed is whole at Enter.
function submitting(date) {
  let typed = false;
  date.addEventListener('keydown', () => { typed = true; });
  date.addEventListener('pointerdown', () => { typed = false; });
  date.addEventListener('change', () => {
    if (!typed && find('customer').value) date.form.requestSubmit();
  });
}

// The page is loaded again once there may be more to show, but not while its reader types.
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
