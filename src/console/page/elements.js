// Builds elements. Text from outside becomes text nodes only.

/** Creates an element with attributes, a class and children: elements or texts. */
export function make(name, { class: className, ...attributes } = {}, ...children) {
  const element = document.createElement(name);
  if (className) element.className = className;
  for (const [key, value] of Object.entries(attributes)) {
    if (value === true) element.setAttribute(key, "");
    else if (value !== undefined && value !== null && value !== false) element.setAttribute(key, String(value));
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/**
 * Makes `children` the children of an element. Those that remain stay where they are: moving them would take the focus
 * from them and begin their animations again.
 */
export function setChildren(element, children) {
  const wanted = new Set(children);
  for (const child of [...element.children]) if (!wanted.has(child)) child.remove();
  children.forEach((child, index) => {
    const present = element.children[index] ?? null;
    if (present !== child) element.insertBefore(child, present);
  });
}

/** Creates an element of a drawing. */
export function draw(name, attributes = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, String(value));
  element.append(...children);
  return element;
}

/** Sets the text of an element only when it changes, so that it is not announced again. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export const byId = (id) => document.getElementById(id);

const integers = new Intl.NumberFormat("en-US");
const rates = new Intl.NumberFormat("en-US", { maximumFractionDigits: 1 });
const amounts = new Intl.NumberFormat("en-US", { minimumFractionDigits: 2, maximumFractionDigits: 2 });

export const integer = (number) => integers.format(number);
export const rate = (number) => rates.format(number >= 100 ? Math.round(number) : number);
export const amount = (number) => amounts.format(number);

/** Formats a duration in milliseconds. */
export function duration(millis) {
  if (millis === null || millis === undefined) return "–";
  if (millis < 10) return `${millis.toFixed(1)} ms`;
  if (millis < 1000) return `${Math.round(millis)} ms`;
  if (millis < 120_000) return `${rates.format(millis / 1000)} s`;
  return `${Math.round(millis / 60_000)} min`;
}

/** Formats a time of day, with milliseconds if wanted. */
export function clock(millis, precise = false) {
  const time = new Date(millis);
  const two = (number) => String(number).padStart(2, "0");
  const text = `${two(time.getHours())}:${two(time.getMinutes())}:${two(time.getSeconds())}`;
  return precise ? `${text}.${String(time.getMilliseconds()).padStart(3, "0")}` : text;
}

/** Formats a time, with its date unless it is today. */
export function moment(millis) {
  const time = new Date(millis);
  const today = new Date().toDateString() === time.toDateString();
  const date = `${time.getFullYear()}-${String(time.getMonth() + 1).padStart(2, "0")}-${String(time.getDate()).padStart(2, "0")}`;
  return today ? clock(millis) : `${date} ${clock(millis)}`;
}
