// Bundles the page and the worker into the package: node build.mjs [FOLDER]
import {build} from 'esbuild';
import {copyFileSync} from 'node:fs';
import {fileURLToPath} from 'node:url';

const here = fileURLToPath(new URL('.', import.meta.url));
const out = process.argv[2] ?? `${here}../toolchain/capprune/serving/built`;
await build({
  absWorkingDir: here,
  entryPoints: ['src/page.ts', 'src/worker.ts'],
  outdir: out,
  bundle: true,
  format: 'iife',
  target: 'es2022',
  minify: true,
  charset: 'utf8',
  legalComments: 'none',
  banner: {js: '/* capprune and LiteRT.js, Apache-2.0; onnxruntime-web, MIT. Built by browser/build.mjs; the source is in browser/src. */'},
});
copyFileSync(`${here}src/page.css`, `${out}/page.css`);
