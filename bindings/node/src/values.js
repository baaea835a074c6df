'use strict';
// JavaScript's values on their way to C, and JSON on its way back.

const { fileURLToPath } = require('node:url');
const { invalid } = require('./error.js');

function wrong(name, wanted, value) {
  const found = value === null ? 'null' : typeof value;
  return new TypeError(`${name}: ${wanted} is needed, not ${found}`);
}

function string(value, name) {
  if (typeof value !== 'string') throw wrong(name, 'a string', value);
  // C would stop reading there.
  if (value.includes('\0')) throw invalid(name, 'contains a NUL');
  return value;
}

function filePath(value, name) {
  return string(value instanceof URL ? fileURLToPath(value) : value, name);
}

/** Where `least` and `most` are left out, the library says what is allowed of the numbers that it can be given. */
function u32(value, name, least, most) {
  if (typeof value !== 'number') throw wrong(name, 'a number', value);
  if (most !== undefined && !(Number.isInteger(value) && least <= value && value <= most)) {
    throw invalid(name, `is ${value}; allowed are ${least} to ${most}`);
  }
  if (!Number.isInteger(value)) throw invalid(name, `is ${value}; a whole number is needed`);
  if (value < 0) throw invalid(name, `is ${value}; negative numbers are not allowed`);
  if (value > 0xffff_ffff) throw invalid(name, `is ${value}; numbers of 32 bits are the largest that can be given`);
  return value;
}

function u64(value, name) {
  if (typeof value !== 'bigint' && typeof value !== 'number') throw wrong(name, 'a number or BigInt', value);
  if (typeof value === 'number' && Number.isInteger(value) && !Number.isSafeInteger(value)) {
    throw invalid(name, `is ${value}; a number that is not exact has to be a BigInt`);
  }
  if (typeof value === 'number' && !Number.isInteger(value)) throw invalid(name, `is ${value}; a whole number is needed`);
  const exact = BigInt(value);
  if (exact !== BigInt.asUintN(64, exact)) throw invalid(name, `is ${value}; allowed are 0 to 2^64 - 1`);
  return exact;
}

function number(value, name) {
  if (typeof value !== 'number') throw wrong(name, 'a number', value);
  return value;
}

function boolean(value, name) {
  if (typeof value !== 'boolean') throw wrong(name, 'true or false', value);
  return value ? 1 : 0;
}

/** An array of anything array-like, its elements converted. */
function list(value, name, convert) {
  if (!Array.isArray(value) && !ArrayBuffer.isView(value)) throw wrong(name, 'an array', value);
  return Array.from(value, (element, i) => convert(element, `${name}[${i}]`));
}

/** The names of the C library in JavaScript's manner. */
function camel(name) {
  return name.replace(/_(\w)/g, (_, letter) => letter.toUpperCase());
}

function snake(name) {
  return name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}

/** JSON of the library, its names in JavaScript's manner. */
function parse(json) {
  const renamed = (value) => {
    if (Array.isArray(value)) return value.map(renamed);
    if (value === null || typeof value !== 'object') return value;
    return Object.fromEntries(Object.entries(value).map(([key, inner]) => [camel(key), renamed(inner)]));
  };
  return renamed(JSON.parse(json));
}

/** How many letters have to be put in, left out, changed or swapped with their neighbour to make one word of another. */
function distance(a, b) {
  const rows = [Array.from({ length: b.length + 1 }, (_, j) => j)];
  for (let i = 1; i <= a.length; i += 1) {
    rows.push([i]);
    for (let j = 1; j <= b.length; j += 1) {
      const same = a[i - 1] === b[j - 1];
      let least = Math.min(rows[i - 1][j] + 1, rows[i][j - 1] + 1, rows[i - 1][j - 1] + (same ? 0 : 1));
      const swapped = i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1];
      if (swapped) least = Math.min(least, rows[i - 2][j - 2] + 1);
      rows[i].push(least);
    }
  }
  return rows[a.length][b.length];
}

/** The error about an option that does not exist, with those of the names that were probably meant. */
function unknown(name, names) {
  const plain = (text) => text.replaceAll('_', '').toLowerCase();
  const far = names.map((known) => [distance(plain(name), plain(known)), known]).sort(([a], [b]) => a - b);
  const near = far.filter(([letters]) => letters <= Math.max(1, name.length / 4) && letters === far[0][0]);
  const hint = near.length > 0 ? `did you mean ${near.map(([, known]) => known).join(' or ')}?` : `there are ${names.join(', ')}`;
  return new TypeError(`there is no option ${name}; ${hint}`);
}

module.exports = { boolean, camel, filePath, list, number, parse, snake, string, u32, u64, unknown };
