/** All heads as thumbnails: those of one layer in a row for each key-value head, or those of every layer. */
import { html, useMemo, useRef } from "../../html.js";
import { MONO, fit, offscreen } from "../../draw/paint.js";
import { LINE, PAPER, INK, SOFT, portion, rgb } from "../../draw/scales.js";
import { useSize, useTheme } from "../../hooks.js";
import { Matrix } from "../../parts/index.js";
import { KIND, best, tight } from "./numbers.js";
import { sheet } from "./shades.js";

const CHIP = 14; // pixels under a thumbnail, for what the head does best

/** The sheet of thumbnails, painted once. */
function useSheet(thumbs, given) {
  return useMemo(() => {
    const { data, width, height } = sheet(thumbs, given);
    const canvas = offscreen(width, height);
    canvas.getContext("2d").putImageData(new ImageData(data, width, height), 0, 0);
    return canvas;
  }, [thumbs, ...Object.values(given)]);
}

/** What a head is and does, in words. */
export function headWords({ layer, head, kvHead, scores, kinds, nHeads, touched }) {
  const said = kinds.map((kind, k) => [KIND[kind][1], scores[k * nHeads + head]]).filter(([, value]) => Number.isFinite(value));
  const does = said.map(([name, value]) => `${name} ${portion(value, 2)}`).join(", ");
  return `layer ${layer}, head ${head}, key-value head ${kvHead}\nmean attention: ${does || "no query"}${touched ? `\n${touched}` : ""}`;
}

/** One thumbnail, its frame, the head's number and its chip. */
function paintThumb(context, { canvas, side, layerRow, head, rect, theme, chip, number, mark }) {
  const room = Math.min(rect.width - 3, rect.height - (chip ? CHIP : 0) - 3);
  const [x, y] = [rect.x + (rect.width - room) / 2, rect.y + 1];
  context.imageSmoothingEnabled = room < side;
  context.drawImage(canvas, head * side, layerRow * side, side, side, x, y, room, room);
  context.strokeStyle = LINE[theme];
  context.lineWidth = 1;
  context.strokeRect(Math.round(x) - 0.5, Math.round(y) - 0.5, Math.round(room) + 1, Math.round(room) + 1);
  if (number) paintNumber(context, `${head}`, x, y, room, theme);
  if (mark) paintMark(context, x, y, room, theme);
  if (chip) {
    context.font = `${rect.width < 54 ? 9 : 10}px ${MONO}`;
    context.textAlign = "center";
    context.textBaseline = "middle";
    context.fillStyle = SOFT[theme];
    context.fillText(fit(context, chip, rect.width), rect.x + rect.width / 2, y + room + CHIP / 2 + 1);
  }
}

/** The head's number in the upper right corner, where no query can look. */
function paintNumber(context, text, x, y, room, theme) {
  context.font = `10px ${MONO}`;
  context.textAlign = "right";
  context.textBaseline = "top";
  const wide = context.measureText(text).width + 4;
  context.fillStyle = PAPER[theme];
  context.fillRect(x + room - wide, y, wide, 12);
  context.fillStyle = INK[theme];
  context.fillText(text, x + room - 2, y + 2);
}

/** A cross over a head that something is done to. */
function paintMark(context, x, y, room, theme) {
  const size = Math.min(9, room / 2);
  context.fillStyle = PAPER[theme];
  context.fillRect(x, y, size + 2, size + 2);
  context.strokeStyle = INK[theme];
  context.lineWidth = 1.5;
  context.beginPath();
  context.moveTo(x + 2, y + 2);
  context.lineTo(x + size, y + size);
  context.moveTo(x + size, y + 2);
  context.lineTo(x + 2, y + size);
  context.stroke();
}

/** The chip of a head: what it does best, and how much. */
function chipOf({ kinds, scores, nHeads }, head) {
  const found = best(scores, kinds, nHeads, head);
  return found ? `${KIND[found.kind][0]} ${tight(found.value)}` : "";
}

/**
 * The heads of one layer.
 * @param {{ bench: object, data: object, head: number, choose(layer: number, head: number): void, onDelete(layer: number,
 *   head: number): void, shade: string }} props
 */
export function LayerHeads({ bench, data, head: chosen, choose, onDelete, shade }) {
  const theme = useTheme();
  const box = useRef(null);
  const { width } = useSize(box);
  const { n_heads: nHeads, n_key_value_heads: nGroups } = bench.state.value.model;
  const { json, arrays } = data;
  const { layer, kinds, touched } = json;
  const perGroup = nHeads / nGroups;
  const side = arrays.thumbs.shape[1];
  const change = json.limit !== null;
  const canvas = useSheet(arrays.thumbs, { nLayers: 1, nHeads, side, theme, shade, change });
  const given = { kinds, scores: arrays.scores, nHeads };
  const cell = Math.max(46, Math.min(104, Math.floor((width - 46) / perGroup)));
  const paint = useMemo(() => (context, { part, rect }) => {
    for (let row = part.top; row < part.bottom; row++) {
      for (let col = part.left; col < part.right; col++) {
        const head = row * perGroup + col;
        const chip = chipOf(given, head);
        paintThumb(context, { canvas, side, layerRow: 0, head, rect: rect(row, col), theme, chip, number: true, mark: touched[head] });
      }
    }
  }, [canvas, json, arrays, theme, perGroup]); // prettier-ignore
  const paper = useMemo(() => () => rgb(PAPER[theme]), [theme]);
  const values = useMemo(() => new Uint8Array(nHeads), [nHeads]);
  const rowLabels = useMemo(() => Array.from({ length: nGroups }, (_, i) => `kv ${i}`), [nGroups]);
  const hover = bench.hover.value;
  const at = (head) => ({ row: Math.floor(head / perGroup), col: head % perGroup });
  const headOf = (row, col) => row * perGroup + col;
  return html`<div ref=${box}>${width > 0 && html`<${Matrix} rows=${nGroups} cols=${perGroup} values=${values} colour=${paper}
    rowLabels=${rowLabels} cell=${{ width: cell, height: cell + CHIP - 2 }} maxHeight=${640} paint=${paint}
    label=${`heads of layer ${layer}, a row for each key-value head`} selected=${at(chosen)}
    hovered=${hover?.head !== undefined && hover.layer === layer ? at(hover.head) : null}
    describe=${(row, col) => headWords({ ...given, layer, head: headOf(row, col), kvHead: row, touched: touched[headOf(row, col)] })}
    onHover=${(row, col) => (bench.hover.value = row === null ? null : { layer, head: headOf(row, col) })}
    onSelect=${(row, col) => choose(layer, headOf(row, col))}
    onKey=${(event, { row, col }) => isDelete(event) && (onDelete(layer, headOf(row, col)), true)} />`}</div>`;
}

export const isDelete = (event) => event.key === "Delete" || event.key === "Backspace";

/** The heads of every layer. */
export function AllHeads({ bench, json, arrays, place, choose, onDelete, shade }) {
  const theme = useTheme();
  const { n_heads: nHeads, n_key_value_heads: nGroups, n_layers: nLayers, windows } = bench.state.value.model;
  const perGroup = nHeads / nGroups; // heads of one key-value head stand together
  const side = arrays.thumbs.shape[2];
  const change = json.limit !== null;
  const canvas = useSheet(arrays.thumbs, { nLayers, nHeads, side, theme, shade, change });
  const scoresOf = (layer) => arrays.scores.subarray(layer * json.kinds.length * nHeads, (layer + 1) * json.kinds.length * nHeads);
  const paint = useMemo(() => (context, { part, rect, cw }) => {
    for (let row = part.top; row < part.bottom; row++) {
      if (!arrays.known[row]) continue;
      const given = { kinds: json.kinds, scores: scoresOf(row), nHeads };
      for (let col = part.left; col < part.right; col++) {
        const chip = cw >= 58 ? chipOf(given, col) : "";
        paintThumb(context, { canvas, side, layerRow: row, head: col, rect: rect(row, col), theme, chip });
      }
    }
    // Over the thumbnails, which leave no room between them where they are small.
    context.fillStyle = SOFT[theme];
    const [from, to] = [rect(part.top, 0).y, rect(part.bottom, 0).y];
    for (let head = perGroup; head < nHeads; head += perGroup) context.fillRect(Math.round(rect(0, head).x) - 1, from, 1, to - from);
  }, [canvas, json, arrays, theme]); // prettier-ignore
  const paper = useMemo(() => () => rgb(PAPER[theme]), [theme]);
  const values = useMemo(() => new Uint8Array(nLayers * nHeads), [nLayers, nHeads]);
  const hatch = useMemo(() => Uint8Array.from(values, (_, i) => (arrays.known[Math.floor(i / nHeads)] ? 0 : 1)), [arrays, nHeads]);
  const rowLabels = useMemo(() => windows.map((window, i) => `L${i}${window ? " w" : ""}`), [windows]);
  const colLabels = useMemo(() => Array.from({ length: nHeads }, (_, i) => `${i}`), [nHeads]);
  const describe = (layer, head) => {
    if (!arrays.known[layer]) return `layer ${layer}, head ${head}\nnot worked out yet`;
    return headWords({ layer, head, kvHead: Math.floor(head / perGroup), scores: scoresOf(layer), kinds: json.kinds, nHeads });
  };
  const box = useRef(null);
  const { width } = useSize(box);
  const cell = Math.max(14, Math.min(76, (width - 50) / nHeads));
  const hover = bench.hover.value;
  return html`<div ref=${box}>${width > 0 && html`<${Matrix} rows=${nLayers} cols=${nHeads} values=${values} colour=${paper}
    hatch=${hatch} paint=${paint} rowLabels=${rowLabels} colLabels=${colLabels} maxHeight=${460}
    cell=${{ width: cell, height: cell + (cell >= 58 ? CHIP - 2 : 0) }} label="heads of every layer: rows are layers, columns heads"
    selected=${{ row: place.layer, col: place.head }}
    hovered=${hover?.head !== undefined && hover.layer !== undefined ? { row: hover.layer, col: hover.head } : null}
    describe=${describe} onHover=${(layer, head) => (bench.hover.value = layer === null ? null : { layer, head })}
    onSelect=${choose} onKey=${(event, { row, col }) => isDelete(event) && (onDelete(row, col), true)} />`}</div>`;
}
