// Searching and sorting. The page says the same without it.
(function () {
  'use strict';
  var table = document.getElementById('orphans');
  if (!table) { return; }
  var body = table.tBodies[0];
  var rows = Array.from(body.rows);
  var heads = Array.from(table.tHead.rows[0].cells);
  var shown = document.getElementById('shown');
  var search = document.getElementById('search');
  var choice = document.getElementById('sort');
  var count = new Intl.NumberFormat('en-US');
  var texts = null;

  function say(visible) {
    shown.textContent = visible === rows.length
      ? count.format(rows.length) + ' shown'
      : count.format(visible) + ' of ' + count.format(rows.length) + ' shown';
  }

  function filter() {
    if (!texts) { texts = rows.map(function (row) { return row.textContent.toLowerCase(); }); }
    var words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    var visible = 0;
    rows.forEach(function (row, index) {
      var found = words.every(function (word) { return texts[index].indexOf(word) >= 0; });
      row.hidden = !found;
      if (found) { visible += 1; }
    });
    say(visible);
  }

  function sort(column, direction) {
    var numeric = heads[column].dataset.kind === 'number';
    var keyed = rows.map(function (row, index) {
      var cell = row.cells[column];
      var text = cell.dataset.v === undefined ? cell.textContent.trim() : cell.dataset.v;
      return { row: row, index: index, key: numeric ? Number(text) : text };
    });
    keyed.sort(function (a, b) {
      if (a.key < b.key) { return -direction; }
      if (a.key > b.key) { return direction; }
      return a.index - b.index;
    });
    var sorted = document.createDocumentFragment();
    keyed.forEach(function (entry) { sorted.appendChild(entry.row); });
    body.appendChild(sorted);
    heads.forEach(function (head, index) {
      if (index === column) {
        head.setAttribute('aria-sort', direction > 0 ? 'ascending' : 'descending');
      } else {
        head.removeAttribute('aria-sort');
      }
    });
  }

  function toggle(column) {
    var current = heads[column].getAttribute('aria-sort');
    var numeric = heads[column].dataset.kind === 'number';
    var direction = current === 'ascending' ? -1 : current === 'descending' ? 1 : numeric ? -1 : 1;
    sort(column, direction);
  }

  heads.forEach(function (head, column) {
    var button = document.createElement('button');
    button.type = 'button';
    button.textContent = head.textContent;
    button.addEventListener('click', function () { toggle(column); });
    head.replaceChildren(button);

    [1, -1].forEach(function (direction) {
      var numeric = head.dataset.kind === 'number';
      var option = document.createElement('option');
      var order = numeric ? [', smallest first', ', largest first'] : [', ascending', ', descending'];
      option.value = column + ',' + direction;
      option.textContent = button.textContent + (direction > 0 ? order[0] : order[1]);
      option.selected = head.getAttribute('aria-sort') === 'descending' && direction < 0;
      choice.appendChild(option);
    });
  });
  choice.addEventListener('change', function () {
    var parts = choice.value.split(',');
    sort(Number(parts[0]), Number(parts[1]));
  });

  var waiting = 0;
  search.addEventListener('input', function () {
    clearTimeout(waiting);
    waiting = setTimeout(filter, 80);
  });
  document.getElementById('controls').addEventListener('submit', function (event) { event.preventDefault(); });
  document.getElementById('controls').hidden = false;
  say(rows.length);
}());
