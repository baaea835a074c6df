'use strict';
// The shared library, and how it is called.

const koffi = require('koffi');
const fs = require('node:fs');
const path = require('node:path');
const abi = require('./abi.json');
const { SitterError } = require('./error.js');
const { candidates } = require('./place.js');

// Files are decoded on the stack that koffi gives a call on Node's pool. Its 128 KiB have been enough, 64 have not.
try {
  koffi.config({ async_stack_size: 1 << 20 });
} catch {
  // Another package has loaded a library before; koffi's settings are fixed then.
}

/** The library's functions by name, without `sitter_`; refuses a library that does not serve this package. */
function bind(file) {
  const library = koffi.load(file);
  const functions = {};
  const add = (prototype) => {
    const name = /sitter_(\w+)\(/.exec(prototype)[1];
    functions[name] = library.func(prototype);
  };
  const first = (prototype) => /sitter_(require_abi|error_\w+)\(/.test(prototype);
  abi.prototypes.filter(first).forEach(add);
  const error = [null];
  const status = functions.require_abi(abi.constants.ABI_MAJOR, abi.constants.ABI_MINOR, error);
  if (status !== abi.constants.OK) throw takeError(functions, status, error[0]);
  abi.prototypes.filter((p) => !first(p)).forEach(add);
  return functions;
}

function load() {
  const tried = [];
  for (const file of candidates()) {
    if (path.isAbsolute(file) && !fs.existsSync(file)) {
      tried.push(`${file}: not there`);
      continue;
    }
    try {
      return bind(file);
    } catch (error) {
      tried.push(`${file}: ${error.message}`);
    }
  }
  throw new Error(
    `the sitter library cannot be loaded; tried\n  ${tried.join('\n  ')}\n` +
      'Set SITTER_LIBRARY to the library file, or build it in the repository: npx sitter-build',
  );
}

let loaded;

/** The library's functions; loads it when it is first needed. */
function native() {
  return (loaded ??= load());
}

/** The JavaScript form of an error object, which is freed. */
function takeError(functions, status, error) {
  const taken = new SitterError(status, functions.error_message(error), functions.error_detail(error));
  functions.error_free(error);
  return taken;
}

/** Calls a fallible function, without its `err`; throws what it reports. */
function call(name, ...values) {
  const functions = native();
  const error = [null];
  const status = functions[name](...values, error);
  if (status !== abi.constants.OK) throw takeError(functions, status, error[0]);
}

/** As `call`, on a thread of Node's pool. */
function callAsync(name, ...values) {
  const functions = native();
  const error = [null];
  return new Promise((resolve, reject) => {
    functions[name].async(...values, error, (failure, status) => {
      if (failure) reject(failure);
      else if (status !== abi.constants.OK) reject(takeError(functions, status, error[0]));
      else resolve();
    });
  });
}

/** Text of a function that copies it out in the two-call form. */
function text(name, ...values) {
  const needed = [0];
  call(name, ...values, null, 0, needed);
  const buffer = Buffer.alloc(needed[0]);
  call(name, ...values, buffer, buffer.length, needed);
  return buffer.toString('utf8', 0, needed[0] - 1);
}

module.exports = { call, callAsync, native, text };
