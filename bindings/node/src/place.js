'use strict';
// Where the shared library may be.

const fs = require('node:fs');
const path = require('node:path');
const { constants } = require('./abi.json');

const PACKAGE = path.join(__dirname, '..');
const REPOSITORY = path.join(PACKAGE, '..', '..');
const MAJOR = constants.ABI_MAJOR;

/** The library's file name where it is built, and the one under which a system has it. */
const [FILE, SYSTEM] = {
  darwin: ['libsitter.dylib', `libsitter.${MAJOR}.dylib`],
  win32: ['sitter.dll', 'sitter.dll'],
}[process.platform] ?? ['libsitter.so', `libsitter.so.${MAJOR}`];

/** Whether this package lies in the repository that it belongs to. */
function inRepository() {
  return ['Cargo.toml', 'include/sitter.h'].every((file) => fs.existsSync(path.join(REPOSITORY, file)));
}

/** What is tried, in order: paths, and at last a name for the system's loader. */
function candidates() {
  if (process.env.SITTER_LIBRARY) return [path.resolve(process.env.SITTER_LIBRARY)];
  const found = [path.join(PACKAGE, 'native', FILE)];
  if (inRepository()) {
    const target = path.resolve(REPOSITORY, process.env.CARGO_TARGET_DIR || 'target');
    found.push(path.join(target, 'release', FILE));
  }
  return [...found, SYSTEM];
}

module.exports = { FILE, PACKAGE, REPOSITORY, candidates, inRepository };
