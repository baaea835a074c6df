// What the tests share. SITTER_LIBRARY must name a debug build: it has the fake model.
import { execFile } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Model } from 'sitter';

export const HERE = fileURLToPath(new URL('.', import.meta.url));
export const FOX = [1, 2, 3, 4].map((n) => join(HERE, `../../../assets/subjects/fox/${n}.png`));

/** A picture of one colour. */
export function plain(level, width = 2, height = 2) {
  return { data: new Uint8Array(width * height * 3).fill(level), width, height };
}

/** A model that counts `steps` steps of `step_ms` milliseconds for every verb. */
export function fake(settings = 'steps=4') {
  return Model.open(`fake:${settings}`);
}

/** A folder for the files of one test. */
export function folder(t) {
  const path = mkdtempSync(join(tmpdir(), 'sitter-'));
  t.after(() => rmSync(path, { recursive: true }));
  return path;
}

/** Runs a program of its own to its end; gives its code, signal, output and milliseconds. */
export function program(source, ...flags) {
  const started = Date.now();
  const module = `import { Model, Run, Subject } from 'sitter';\n${source}`;
  return new Promise((resolve) => {
    const options = { cwd: HERE, timeout: 60_000, killSignal: 'SIGKILL' };
    const child = execFile(process.execPath, [...flags, '--input-type=module', '-e', module], options, (_, stdout, stderr) => {
      resolve({ code: child.exitCode, signal: child.signalCode, stdout, stderr, ms: Date.now() - started });
    });
  });
}

export function sleep(ms) {
  return new Promise((resolve) => {
    setTimeout(resolve, ms);
  });
}
