// Draws a page as SVG: its boxes, borders and texts at their places.

/** Runs in the page. Returns the SVG of what is above `height` pixels. */
function drawn(height) {
  const escape = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
  const round = (number) => Math.round(number * 10) / 10;
  const out = [];
  const visible = (color) => color && color !== "transparent" && !/, 0\)$/.test(color);

  const text = (content, left, baseline, style) => out.push(
    `<text x="${round(left)}" y="${round(baseline)}" fill="${style.color}" font-size="${round(parseFloat(style.fontSize))}" `
    + `font-weight="${style.fontWeight}"${style.fontFamily.includes("monospace") ? ' font-family="monospace"' : ""}>${escape(content)}</text>`);

  const box = (element, style) => {
    const { left, top, width, height } = element.getBoundingClientRect();
    const border = parseFloat(style.borderTopWidth) && parseFloat(style.borderLeftWidth) && visible(style.borderTopColor);
    if (width && height && (visible(style.backgroundColor) || border)) {
      const inset = border ? parseFloat(style.borderTopWidth) / 2 : 0;
      const stroke = border ? ` stroke="${style.borderTopColor}" stroke-width="${2 * inset}"${style.borderTopStyle === "dashed" ? ' stroke-dasharray="4 3"' : ""}` : "";
      const radius = parseFloat(style.borderTopLeftRadius) * (style.borderTopLeftRadius.endsWith("%") ? height / 100 : 1);
      out.push(`<rect x="${round(left + inset)}" y="${round(top + inset)}" width="${round(width - 2 * inset)}" height="${round(height - 2 * inset)}" `
        + `rx="${round(Math.min(radius, height / 2))}" fill="${visible(style.backgroundColor) ? style.backgroundColor : "none"}"${stroke}/>`);
    }
  };

  /** Draws each line of a text node. */
  const lines = (node, style) => {
    const range = document.createRange();
    let line = null;
    const end = () => line?.content.trim() && text(line.content.trimEnd(), line.left, line.bottom - (line.bottom - line.top) * 0.24, style);
    for (const { index, 0: word } of node.data.matchAll(/\s*\S+/g)) {
      range.setStart(node, index + word.length - word.trimStart().length);
      range.setEnd(node, index + word.length);
      const { left, top, bottom } = range.getBoundingClientRect();
      if (line && Math.abs(top - line.top) < 4) line.content += word;
      else {
        end();
        line = { content: word.trimStart(), left, top, bottom };
      }
    }
    end();
  };

  const visit = (element) => {
    const style = getComputedStyle(element);
    const place = element.getBoundingClientRect();
    const isVisible = element.checkVisibility({ contentVisibilityAuto: true, opacityProperty: true, visibilityProperty: true });
    if (!isVisible || !place.width || place.top > height || place.right < 0) return;
    if (element instanceof SVGElement) {
      const copy = element.cloneNode(true);
      const originals = [...element.querySelectorAll("*")];
      [...copy.querySelectorAll("*")].forEach((shape, index) => {
        const { fill, stroke, strokeWidth, strokeLinecap } = getComputedStyle(originals[index]);
        for (const [name, value] of Object.entries({ fill, stroke, "stroke-width": strokeWidth, "stroke-linecap": strokeLinecap, "vector-effect": element.getAttribute("role") === "img" ? "non-scaling-stroke" : "none" })) shape.setAttribute(name, value);
        shape.removeAttribute("class");
      });
      for (const name of ["class", "role", "aria-label", "aria-hidden"]) copy.removeAttribute(name);
      for (const [name, value] of Object.entries({ x: place.left, y: place.top, width: place.width, height: place.height })) copy.setAttribute(name, round(value));
      copy.setAttribute("overflow", "visible");
      out.push(new XMLSerializer().serializeToString(copy));
      return;
    }
    box(element, style);
    const arrow = getComputedStyle(element, "::after");
    if (element.classList.contains("node") && arrow.content !== "none") {
      const middle = place.top + place.height / 2;
      const [from, to] = [place.right + 1, place.right + 29];
      out.push(`<path d="M${round(from)} ${round(middle)}H${round(to)}m-6 -6l6 6l-6 6" fill="none" stroke="${arrow.backgroundColor}" stroke-width="2"/>`);
    }
    const mark = getComputedStyle(element, "::before");
    if (element.matches(".legend span")) {
      out.push(`<rect x="${round(place.left)}" y="${round(place.top + place.height / 2)}" width="12" height="3" rx="1.5" fill="${mark.backgroundColor}"/>`);
    } else if (element.matches(".step:not(.plain)")) {
      const title = element.firstElementChild.getBoundingClientRect();
      out.push(`<circle cx="${round(place.left + 5)}" cy="${round(title.top + title.height / 2)}" r="4" fill="${mark.backgroundColor}" stroke="${mark.borderTopColor}" stroke-width="2"/>`);
    }
    if (element instanceof HTMLInputElement) {
      text(element.value, place.left + parseFloat(style.paddingLeft) + 1, place.top + place.height / 2 + parseFloat(style.fontSize) * 0.36, style);
      return;
    }
    const clips = style.overflowY === "auto" && element.scrollHeight > element.clientHeight;
    if (clips) {
      const id = `clip-${out.length}`;
      out.push(`<clipPath id="${id}"><rect x="${round(place.left)}" y="${round(place.top)}" width="${round(place.width)}" height="${round(place.height)}"/></clipPath><g clip-path="url(#${id})">`);
    }
    for (const child of element.childNodes) {
      if (child.nodeType === Node.TEXT_NODE) lines(child, style);
      else if (child.nodeType === Node.ELEMENT_NODE) visit(child);
    }
    if (clips) out.push("</g>");
  };
  visit(document.body);
  const width = document.documentElement.clientWidth;
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" font-family="system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', sans-serif">\n`
    + `<rect width="${width}" height="${height}" fill="${getComputedStyle(document.body).backgroundColor}"/>\n${out.join("\n")}\n</svg>\n`;
}

/** Returns the page as SVG, down to the end of the element with this selector. */
export async function drawing(page, selector) {
  await page.evaluate("scrollTo(0, 0)");
  const { y, height } = await page.locator(selector).boundingBox();
  return page.evaluate(`(${drawn})(${Math.ceil(y + height + 16)})`);
}
