// Visits the page of a running console as a user does.
//
// usage: visit.mjs URL DIRECTORY BROWSER LIBRARIES

import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { drawing } from "./drawing.mjs";

const [url, directory, executablePath, libraries] = process.argv.slice(2);
const require = createRequire(join(libraries, "here.js"));
const { chromium } = require("playwright-core");
const axe = require.resolve("axe-core/axe.min.js");

const DEADLINE = 60_000;
const SIZES = { wide: { width: 1320, height: 900 }, narrow: { width: 360, height: 780 } };
const HOSTILE = '<b>VIN</b>&"\'';

const browser = await chromium.launch({
  executablePath,
  args: ["--no-sandbox", "--disable-gpu", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"],
});
const context = await browser.newContext({ viewport: SIZES.wide, bypassCSP: false });
context.setDefaultTimeout(DEADLINE);
const page = await context.newPage();

const problems = [];
const watch = (page) => {
  page.on("console", (message) => {
    // The browser itself reports the vehicles that are refused on purpose.
    if (message.text().includes("status of 400") || message.text().includes("status of 401")) return;
    if (["error", "warning"].includes(message.type())) problems.push(`console: ${message.text()}`);
  });
  page.on("pageerror", (error) => problems.push(`error: ${error.message}`));
  page.on("dialog", (dialog) => problems.push(`dialog: ${dialog.message()}`));
  page.on("request", (request) => {
    if (new URL(request.url()).host !== new URL(url).host) problems.push(`request: ${request.url()}`);
  });
};
watch(page);

const text = (selector) => page.locator(selector).innerText();
const step = (name) => console.log(`visit: ${name}`);
const counted = async (name) => Number((await text(`#tile-${name} dd > span`)).replaceAll(",", ""));
const eventually = async (what, condition) => {
  const until = Date.now() + DEADLINE;
  for (;;) {
    const value = await condition();
    if (value) return value;
    assert.ok(Date.now() < until, `timed out waiting for ${what}`);
    await page.waitForTimeout(100);
  }
};

step("the page becomes live and counts");
await page.goto(url);
await page.locator('#connection[data-state="live"]').waitFor();
await page.locator("#since", { hasText: "vehicles accepted since" }).waitFor();
for (const node of ["stock", "estimate", "ads"]) await page.locator(`#node-${node}[data-state="ready"]`).waitFor();

step("a wrong vehicle is refused at its field");
await page.getByLabel("Year").fill("1700");
await page.getByRole("button", { name: "Post", exact: true }).click();
await page.locator("#year-error").waitFor();
assert.equal(await page.getByLabel("Year").getAttribute("aria-invalid"), "true");

step("a vehicle is posted with the keyboard and followed to its ad");
await page.getByLabel("Year").fill("2022");
await page.getByLabel("VIN", { exact: true }).fill(HOSTILE);
await page.keyboard.press("Enter");
const way = page.locator(".way", { hasText: HOSTILE });
await way.locator(".stage", { hasText: /estimat/ }).waitFor();
await way.locator("[data-due]", { hasText: "done in" }).waitFor();
await page.screenshot({ path: join(directory, "followed.png") });
await page.reload();
await way.locator(".stage", { hasText: "ad published" }).waitFor();
// The list of ads and the records are read independently of each other.
await eventually("all steps", async () => (await way.locator(".step.done").count()) === 6);
assert.ok((await way.innerText()).includes("partition"), await way.innerText());
await page.locator("#ads-rows tr", { hasText: HOSTILE }).waitFor();
assert.equal(await page.locator(".way b, #ads-rows b, #letters-list img").count(), 0, "text became elements");

step("vehicles become as many ads");
await eventually("the first vehicle", async () => (await counted("accepted")) === 1 && (await counted("ads")) === 1);
await page.getByRole("button", { name: "Post 100" }).click();
await page.locator("#post-result", { hasText: "100 of 100 accepted" }).waitFor();
await page.getByRole("button", { name: "Post", exact: true }).click();
await page.locator("#ways details[open] .stage", { hasText: /estimat/ }).waitFor();
await eventually("vehicles in flight", async () => (await counted("onTheirWay")) > 0);
await eventually("all vehicles in the list", async () => (await counted("accepted")) === 102);
writeFileSync(join(directory, "console.svg"), await drawing(page, "#plots"));
for (const scheme of ["light", "dark"]) {
  await page.emulateMedia({ colorScheme: scheme });
  await page.screenshot({ path: join(directory, `busy-${scheme}.png`), fullPage: true });
}
await page.emulateMedia({ colorScheme: "light" });
await eventually("all ads", async () => (await counted("ads")) === 102);
await eventually("no vehicle on its way", async () => (await counted("onTheirWay")) === 0);
assert.equal(await counted("lost"), 0);
assert.equal(await counted("doubled"), 0);

step("a dead letter is replayed, comes back, and is discarded");
const letter = page.locator(".letter").first();
const id = await letter.getAttribute("data-id");
await letter.getByRole("button", { name: /^Replay/ }).click();
await page.keyboard.press("Escape");
assert.equal(await page.locator(`.letter[data-id="${id}"]`).count(), 1, "nothing happens without a confirmation");
await letter.getByRole("button", { name: /^Replay/ }).click();
await page.locator("#confirm-ok").click();
await page.locator("#letters-result", { hasText: `Replayed ${id}` }).waitFor();
await page.locator(`.letter[data-id="${id}"]`).waitFor({ state: "detached" });
await page.locator(".letter").first().waitFor();

step("the page is accessible and fits, wide and narrow, light and dark");
for (const [name, viewport] of Object.entries(SIZES)) {
  await page.setViewportSize(viewport);
  for (const scheme of ["light", "dark"]) {
    await page.emulateMedia({ colorScheme: scheme });
    const width = await page.evaluate(() => document.documentElement.scrollWidth);
    assert.ok(width <= viewport.width, `the page is ${width} px wide in a window of ${viewport.width} px`);
    await page.screenshot({ path: join(directory, `${name}-${scheme}.png`), fullPage: true });
    const checked = await browser.newContext({ viewport, colorScheme: scheme, reducedMotion: "reduce", bypassCSP: true });
    const copy = await checked.newPage();
    await copy.goto(url);
    await copy.locator('#connection[data-state="live"]').waitFor();
    await copy.locator(".letter").first().waitFor();
    await copy.addScriptTag({ path: axe });
    const { violations } = await copy.evaluate(() => globalThis.axe.run());
    for (const { id, impact, nodes } of violations) {
      const where = nodes.slice(0, 3).map((node) => node.html).join(" ");
      const finding = `axe, ${name} ${scheme}: ${id} (${impact}): ${where}`;
      if (["serious", "critical"].includes(impact)) problems.push(finding);
      else console.log(finding);
    }
    await checked.close();
  }
}
await page.setViewportSize(SIZES.wide);

step("the last dead letter is discarded");
await page.locator(".letter").first().getByRole("button", { name: /^Discard/ }).click();
await page.locator("#confirm-ok").click();
await page.locator("#letters-empty").waitFor();

assert.equal(await page.evaluate(() => document.activeElement.id), "letters-title", "the focus remains in the list");

step("a key is asked for once, and Enter gives it");
const tried = [];
await page.route("**/vehicles", (route) => {
  tried.push(route.request().headers().authorization);
  return route.fulfill(tried.at(-1) === "Bearer given" ? { status: 201, json: { id: 1 } } : { status: 401, json: { title: "no key" } });
});
await page.getByRole("button", { name: "Post 100" }).click();
await page.locator("#key-cancel").click();
await page.locator("#post-result", { hasText: "0 of 100 accepted, 1 refused" }).waitFor();
assert.deepEqual([tried, await page.locator("#key-dialog[open]").count()], [[undefined], 0]);
await page.getByRole("button", { name: "Post", exact: true }).click();
await page.locator("#key").fill("given");
await page.keyboard.press("Enter");
await page.locator("#post-result", { hasText: "Accepted as vehicle 1" }).waitFor();

await browser.close();
assert.deepEqual(problems, []);
step(`done, the pictures are in ${directory}`);
