/**
 * Print what an application's bundle grows by, minified and gzipped, and fail
 * when everything that the main entry exports is larger than the limit.
 */
import { build } from 'esbuild';
import { gzipSync } from 'node:zlib';

const LIMIT = 4_600;

async function size(imports) {
  const { outputFiles, metafile } = await build({
    stdin: { contents: `export { ${imports} } from './dist/index.js';`, resolveDir: '.' },
    bundle: true,
    minify: true,
    write: false,
    metafile: true,
    format: 'esm',
    target: 'es2022',
    external: ['react'],
    logLevel: 'error',
  });
  const foreign = Object.keys(metafile.inputs).filter((file) => file.includes('node_modules'));
  if (foreign.length) throw new Error(`the bundle contains ${foreign.join(', ')}`);
  return gzipSync(outputFiles[0].contents, { level: 9 }).length;
}

const rows = {
  everything: 'SessionProvider, useSession, useAuth, useTenant, useSubscription, SessionError, safeReturnPath',
  'SessionProvider, useSession': 'SessionProvider, useSession',
  safeReturnPath: 'safeReturnPath',
};
for (const [name, imports] of Object.entries(rows)) {
  const bytes = await size(imports);
  console.log(`size: ${name}: ${bytes} bytes gzipped`);
  if (bytes > LIMIT) {
    console.error(`size: more than ${LIMIT} bytes`);
    process.exitCode = 1;
  }
}
