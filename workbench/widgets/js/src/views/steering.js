import { placeholder } from "../placeholder.js";

export default placeholder("steering");
