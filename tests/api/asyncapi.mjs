// Validates the AsyncAPI document in the file that is given.
import { readFileSync } from 'node:fs';
import { Parser } from '@asyncapi/parser';

const ERROR = 0;
const { document, diagnostics } = await new Parser().parse(readFileSync(process.argv[2], 'utf8'));
for (const { message, path } of diagnostics) {
  console.log(`${path?.join('.') ?? ''}: ${message}`);
}
process.exitCode = document && !diagnostics.some(({ severity }) => severity === ERROR) ? 0 : 1;
