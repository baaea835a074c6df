// The whole story in Node: open a model, teach it a fox from four pictures, draw the fox in the snow.
//
//     npm install                                        (builds the library, with Rust: some minutes)
//     node story.mjs [MODEL [STEPS [FOLDER_FOR_RESULTS [FOLDER_OF_PICTURES]]]]
//
// Two or three minutes; with 4 steps a few seconds and a poor picture. Ctrl-C stops it.
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Model, Subject } from 'sitter';

const [name = 'embedded:', steps = '0', folder = '.', pictures = '../../assets/subjects/fox'] = process.argv.slice(2);
const place = fileURLToPath(new URL(`${pictures}/`, import.meta.url));
const images = readdirSync(place).sort().map((file) => join(place, file));

const stop = new AbortController();
process.once('SIGINT', () => stop.abort());
const controls = {
  signal: stop.signal,
  onProgress({ stage, done, total, loss }) {
    process.stdout.write(`\r${stage}: ${done} of ${total} ${loss === null ? '' : `(loss ${loss.toFixed(3)}) `}`);
  },
};

const model = await Model.open(name, controls);
const few = Number(steps);
// Otherwise what the model recommends.
const options = few > 0 ? { embeddingSteps: Math.floor(few / 2), layerSteps: Math.ceil(few / 2) } : {};
const learned = await model.train(images, { classWord: 'fox', ...options, ...controls });
await learned.save(join(folder, 'fox.safetensors'));

const subject = await Subject.load(join(folder, 'fox.safetensors')); // as another program would
const [sample] = await model.sample('a photo of a [V] fox in the snow', { subjects: [subject], seed: 7, ...controls });
await sample.savePng(join(folder, 'fox.png'));
console.log(`\nwrote ${join(folder, 'fox.safetensors')} and ${join(folder, 'fox.png')}`);
