#!/usr/bin/env node
'use strict';
// Builds the library into native/ where this package lies in its repository and Rust is there. As npm's `prepare` script,
// which npm runs when this folder is installed or packed, it never fails: the library may come from elsewhere, and a
// missing one is named when it is needed.

const { spawnSync } = require('node:child_process');
const fs = require('node:fs');
const path = require('node:path');
const { FILE, PACKAGE, REPOSITORY, inRepository } = require('./src/place.js');

const preparing = process.argv.includes('--prepare');
const kept = path.join(PACKAGE, 'native', FILE);

function end(message, failed) {
  console.log(`sitter: ${message}`);
  process.exit(failed && !preparing ? 1 : 0);
}

/** npm links a folder that it installs, and leaves it without what it depends on. */
function addDependencies() {
  try {
    require.resolve('koffi');
  } catch {
    const npm = process.env.npm_execpath;
    const command = npm ? [process.execPath, npm] : ['npm'];
    const flags = ['install', '--ignore-scripts', '--no-package-lock', '--no-audit', '--no-fund'];
    // The settings of the outer npm, --install-links or --global, are not for this one.
    const outer = /^npm_config_(global|install_links|local_prefix|prefix)$/i;
    const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !outer.test(name)));
    const { status } = spawnSync(command[0], [...command.slice(1), ...flags], { cwd: PACKAGE, env, stdio: 'inherit' });
    if (status !== 0) end('koffi could not be installed beside it; see above', true);
  }
}

function build() {
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
  // They go where the library and the model inside it go.
  for (const notice of ['LICENSE-MIT', 'LICENSE-APACHE', 'assets/embedded/CREDITS.md']) {
    fs.copyFileSync(path.join(REPOSITORY, notice), path.join(path.dirname(kept), path.basename(notice)));
  }
  end(`built ${kept}`);
}

if (!inRepository()) {
  if (fs.existsSync(kept)) end(`has ${kept}`);
  end('this package holds no library and no sources; set SITTER_LIBRARY to the library file', true);
}
addDependencies();
if (preparing && process.env.SITTER_LIBRARY) end(`uses ${process.env.SITTER_LIBRARY}`);
build();
