// Runs the checks of a client and prints one line for each: name, ok | unsupported | failed, detail.

const TIMEOUT = 120_000

export const [bootstrap, prefix] = process.argv.slice(2)
export const registry = process.env.REGISTRY

// Runs each check of a table of names and functions. null stands for an API that the client lacks.
export async function main(checks) {
  for (const [name, check] of Object.entries(checks)) {
    console.log([name, ...(await outcome(check))].join('\t'))
  }
  // Clients that hang must not keep the process.
  process.exit(0)
}

async function outcome(check) {
  if (check === null) {
    return ['unsupported', '']
  }
  const late = new Promise((_, reject) => setTimeout(reject, TIMEOUT, new Error('no result in time')).unref())
  try {
    await Promise.race([check(), late])
    return ['ok', '']
  } catch (error) {
    const causes = [error, ...(error.errors ?? []), error.cause].filter(Boolean)
    return ['failed', causes.map(cause => cause.message ?? cause).join(': ').replace(/\s+/g, ' ')]
  }
}

export function expect(expected, actual) {
  const [wanted, found] = [expected, actual].map(value => JSON.stringify(value))
  if (wanted !== found) {
    throw new Error(`expected ${wanted}, got ${found}`)
  }
}

// Waits until the condition is true; `main` has the deadline.
export async function until(condition) {
  while (!(await condition())) {
    await new Promise(resolve => setTimeout(resolve, 20))
  }
}
