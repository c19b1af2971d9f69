/** Paints the slots of the cells that are on screen. */
import { MONO } from "../../draw/paint.js";
import { CHOSEN, INK, SOFT, expertColour, inkOn, rgb } from "../../draw/scales.js";
import { edges, first, isNew, slotOf } from "./reduce.js";

/** The room on either side of a cell, that layers stand apart. */
export const gapOf = (width) => (width >= 26 ? 3 : width >= 14 ? 2 : width >= 8 ? 1 : 0.5);

const CHARACTER = 6.1; // pixels of one at 10 px

/** The colours of the experts and of what is written on them. */
function inks(theme) {
  return Array.from({ length: 12 }, (_, i) => ({ fill: expertColour(i, theme), ink: inkOn(rgb(expertColour(i, theme))) }));
}

/**
 * A function for Matrix's `paint`.
 * @param {{ routes: import("./reduce.js").Routes, theme: "light"|"dark", chosen: { layer: number|null, expert: number|null,
 *   row: number|null }, cursor: { row: number, col: number, slot: number }|null, most: number }} given most: the largest KL
 */
export function slotPainter(given) {
  const { routes, theme } = given;
  const colours = inks(theme);
  const rights = new Float32Array(routes.slots);
  return (context, place) => {
    const gap = gapOf(place.cw);
    const air = place.ch >= 10 ? 1 : 0;
    context.textAlign = "center";
    context.textBaseline = "middle";
    context.font = `10px ${MONO}`;
    for (let row = place.part.top; row < place.part.bottom; row++) {
      for (let col = place.part.left; col < place.part.right; col++) {
        const { x, y } = place.rect(row, col);
        const box = { x: x + gap, y: y + air, width: place.cw - 2 * gap, height: place.ch - 2 * air };
        if (col < routes.layers) cell(context, { ...given, colours, rights }, box, row, col);
        else divergence(context, given, box, row);
      }
    }
  };
}

/** One token in one layer. */
function cell(context, { routes, theme, chosen, cursor, colours, rights }, box, row, layer) {
  const from = first(routes, row, layer);
  edges(routes.weight, from, routes.slots, box.width, rights);
  const picked = chosen.layer === layer ? chosen.expert : null;
  const here = cursor && cursor.row === row && cursor.col === layer ? cursor.slot : -1;
  for (let i = 0; i < routes.slots; i++) {
    const expert = routes.chosen[from + i];
    const left = i ? rights[i - 1] : 0;
    const slot = { x: box.x + left, y: box.y, width: Math.max(rights[i] - left - (box.width >= 8 * routes.slots ? 1 : 0), 1), height: box.height };
    const { fill, ink } = colours[expert % 12];
    const weight = routes.weight[from + i];
    context.globalAlpha = picked !== null && picked !== expert ? 0.28 : 1;
    if (weight === 0) hollow(context, slot, fill);
    else {
      context.fillStyle = fill;
      context.fillRect(slot.x, slot.y, slot.width, slot.height);
      if (weight < 0) stripes(context, slot, ink);
    }
    const text = String(expert);
    if (slot.height >= 11 && slot.width >= text.length * CHARACTER + 3) {
      context.globalAlpha = 1;
      context.fillStyle = weight === 0 || (picked !== null && picked !== expert) ? INK[theme] : ink;
      context.fillText(text, slot.x + slot.width / 2, slot.y + slot.height / 2 + 0.5);
    }
    context.globalAlpha = 1;
    if (isNew(routes, from, expert)) notch(context, slot, theme);
    if (i === here) underline(context, slot, theme);
  }
  if (picked !== null && row === chosen.row) outlined(context, box, rights, slotOf(routes, row, layer, picked), theme);
}

/** An expert that writes nothing. */
function hollow(context, { x, y, width, height }, colour) {
  context.strokeStyle = colour;
  context.lineWidth = 1;
  context.strokeRect(x + 0.5, y + 0.5, Math.max(width - 1, 1), Math.max(height - 1, 1));
}

/** An expert whose weight is below zero. */
function stripes(context, { x, y, width, height }, ink) {
  context.fillStyle = ink;
  for (let at = 2; at < width; at += 4) context.fillRect(x + at, y, 1, height);
}

/** The token did not go here before: a corner where there is room, else a bar. */
function notch(context, { x, y, width, height }, theme) {
  context.fillStyle = CHOSEN[theme];
  if (height < 9 || width < 5) return context.fillRect(x, y, Math.min(2, width), height);
  const size = Math.min(6, width);
  context.beginPath();
  context.moveTo(x, y);
  context.lineTo(x + size, y);
  context.lineTo(x, y + size);
  context.fill();
  return undefined;
}

function underline(context, { x, y, width, height }, theme) {
  context.fillStyle = CHOSEN[theme];
  context.fillRect(x, y + height - 2, width, 2);
}

function outlined(context, box, rights, slot, theme) {
  if (slot < 0) return;
  const left = slot ? rights[slot - 1] : 0;
  context.strokeStyle = CHOSEN[theme];
  context.lineWidth = 2;
  context.strokeRect(box.x + left + 1, box.y + 1, Math.max(rights[slot] - left - 3, 1), Math.max(box.height - 2, 1));
}

/** How far the next token's distribution moved: a bar; ≠ where the likeliest token is another. */
function divergence(context, { routes, theme, most }, box, row) {
  const width = Math.max((routes.kl[row] / most) * box.width, routes.kl[row] > 0 ? 1 : 0);
  context.fillStyle = SOFT[theme];
  const tall = Math.max(Math.min(box.height - 4, 8), 2);
  context.fillRect(box.x, box.y + (box.height - tall) / 2, width, tall);
  if (!routes.flipped[row]) return;
  context.fillStyle = INK[theme];
  if (box.height >= 11) context.fillText("≠", box.x + box.width - 5, box.y + box.height / 2);
  else context.fillRect(box.x + box.width - 3, box.y, 3, box.height);
}
