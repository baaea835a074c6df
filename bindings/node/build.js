#!/usr/bin/env node
'use strict';
// Builds the library into native/ where this package lies in its repository and Rust is there. As npm's install script
// (--install) it never fails: the library may come from elsewhere, and a missing one is named when it is needed.

const { spawnSync } = require('node:child_process');
const fs = require('node:fs');
const path = require('node:path');
const { FILE, PACKAGE, REPOSITORY, inRepository } = require('./src/place.js');

const installing = process.argv.includes('--install');
const kept = path.join(PACKAGE, 'native', FILE);

function end(message, failed) {
  console.log(`sitter: ${message}`);
  process.exit(failed && !installing ? 1 : 0);
}

if (installing && process.env.SITTER_LIBRARY) end(`uses ${process.env.SITTER_LIBRARY}`);
if (!inRepository()) {
  if (fs.existsSync(kept)) end(`has ${kept}`);
  end('this package holds no library and no sources; set SITTER_LIBRARY to the library file', true);
}
const manifest = ['--manifest-path', path.join(REPOSITORY, 'Cargo.toml')];
const metadata = spawnSync('cargo', ['metadata', '--format-version', '1', '--no-deps', ...manifest], { encoding: 'utf8' });
if (metadata.status !== 0) {
  const reason = metadata.error ? 'cargo is not installed (https://rustup.rs)' : metadata.stderr;
  end(`the library is not built: ${reason}`, true);
}
const built = spawnSync('cargo', ['build', '--release', '--lib', ...manifest], { stdio: 'inherit' });
if (built.status !== 0) end('cargo could not build the library; see above', true);
fs.mkdirSync(path.dirname(kept), { recursive: true });
// A running program may have the old file mapped: it keeps it.
fs.copyFileSync(path.join(JSON.parse(metadata.stdout).target_directory, 'release', FILE), `${kept}.new`);
fs.renameSync(`${kept}.new`, kept);
end(`built ${kept}`);
