/** Everything that views are made of. */
export { Bars, Distribution, LineChart } from "./charts.js";
export { Button, Check, Panel, Segmented, Select, Slider, TextField } from "./controls.js";
export { JobBar, JobLine, duration, progressText } from "./jobs.js";
export { Key, Legend } from "./legend.js";
export { Matrix } from "./matrix.js";
export { Empty, Failure, Guard, Loading, Ready } from "./messages.js";
export { Popup } from "./popup.js";
export { SortableTable } from "./table.js";
export { TokenLabel, TokenStrip } from "./tokens.js";
