// Kills an estimator with the panel of faults while 200 vehicles are in flight.
//
// usage: faults.mjs URL DIRECTORY BROWSER LIBRARIES

import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { drawing } from "./drawing.mjs";

const [url, directory, executablePath, libraries] = process.argv.slice(2);
const require = createRequire(join(libraries, "here.js"));
const { chromium } = require("playwright-core");
const axe = require.resolve("axe-core/axe.min.js");

const DEADLINE = 90_000;
const browser = await chromium.launch({
  executablePath,
  args: ["--no-sandbox", "--disable-gpu", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"],
});
const page = await browser.newPage({ viewport: { width: 1320, height: 900 } });
page.setDefaultTimeout(DEADLINE);

const problems = [];
page.on("console", (message) => {
  if (["error", "warning"].includes(message.type())) problems.push(`console: ${message.text()}`);
});
page.on("pageerror", (error) => problems.push(`error: ${error.message}`));
page.on("request", (request) => {
  if (new URL(request.url()).host !== new URL(url).host) problems.push(`request: ${request.url()}`);
});

const still = async (name) => {
  await page.emulateMedia({ colorScheme: "light" });
  writeFileSync(join(directory, `fault-${name}.svg`), await drawing(page, "#pipeline"));
};
const step = (name) => console.log(`faults: ${name}`);
const counted = async (name) => Number((await page.locator(`#tile-${name} dd > span`).innerText()).replaceAll(",", ""));
const eventually = async (what, condition) => {
  const until = Date.now() + DEADLINE;
  while (!(await condition())) {
    assert.ok(Date.now() < until, `timed out waiting for ${what}`);
    await page.waitForTimeout(100);
  }
};

step("the page offers every fault");
await page.goto(url);
await page.locator("#since", { hasText: "vehicles accepted since" }).waitFor();
await page.locator('#node-estimate[data-state="ready"]', { hasText: "2 of 2 ready" }).waitFor();
assert.equal(await page.locator("#faults .fault").count(), 8);
assert.equal(await page.locator(".fault-mark").count(), 0);

step("an estimator is killed with 200 vehicles in flight");
for (const accepted of [100, 200]) {
  await page.getByRole("button", { name: "Post 100" }).click();
  await eventually(`${accepted} vehicles`, async () => (await counted("accepted")) === accepted);
}
await eventually("200 vehicles in flight", async () => (await counted("onTheirWay")) === 200);
await still("before");
const kill = page.getByRole("button", { name: "Kill estimator" });
await kill.focus();
await page.keyboard.press("Enter");
await page.locator("#node-estimate .fault-mark", { hasText: "Kill estimator (process 1), ends in" }).waitFor();
await page.locator("#node-estimate", { hasText: "1 of 2 ready" }).waitFor();
assert.ok(await kill.isDisabled());
await still("during");
for (const scheme of ["light", "dark"]) {
  await page.emulateMedia({ colorScheme: scheme });
  await page.screenshot({ path: join(directory, `fault-${scheme}.png`), fullPage: true });
}
await page.setViewportSize({ width: 360, height: 780 });
const checked = await browser.newContext({ bypassCSP: true });
const copy = await checked.newPage();
await copy.goto(url);
await copy.locator("#faults .fault").first().waitFor();
await copy.addScriptTag({ path: axe });
const { violations } = await copy.evaluate(() => globalThis.axe.run());
for (const { id, impact } of violations) {
  if (["serious", "critical"].includes(impact)) problems.push(`axe: ${id} (${impact})`);
}
await checked.close();
const width = await page.evaluate(() => document.documentElement.scrollWidth);
assert.ok(width <= 360, `the page is ${width} px wide in a window of 360 px`);
await page.screenshot({ path: join(directory, "fault-narrow.png"), fullPage: true });
await page.setViewportSize({ width: 1320, height: 900 });

step("the fault ends by itself, and every vehicle has one ad");
await eventually("the end of the fault", async () => !(await kill.isDisabled()));
await page.locator("#node-estimate", { hasText: "2 of 2 ready" }).waitFor();
await eventually("all ads", async () => (await counted("ads")) === 200);
assert.equal(await page.locator(".fault-mark").count(), 0);
assert.equal(await counted("onTheirWay"), 0);
assert.equal(await counted("lost"), 0);
assert.equal(await counted("doubled"), 0);
await page.locator("#pipeline", { hasText: /lag of estimate\s*0[^]*lag of ads\s*0/ }).waitFor();
await still("after");
await page.screenshot({ path: join(directory, "fault-over.png"), fullPage: true });

await browser.close();
assert.deepEqual(problems, []);
step("done");
