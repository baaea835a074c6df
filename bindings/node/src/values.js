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

function u32(value, name) {
  if (typeof value !== 'number') throw wrong(name, 'a number', value);
  if (!Number.isInteger(value) || value < 0 || value > 0xffff_ffff) {
    throw invalid(name, `is ${value}; allowed are whole numbers from 0`);
  }
  return value;
}

function u64(value, name) {
  if (typeof value !== 'bigint' && typeof value !== 'number') throw wrong(name, 'a number or BigInt', value);
  if (typeof value === 'number' && !Number.isSafeInteger(value)) {
    throw invalid(name, `is ${value}; a number that is not exact has to be a BigInt`);
  }
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

module.exports = { boolean, filePath, list, number, parse, snake, string, u32, u64 };
