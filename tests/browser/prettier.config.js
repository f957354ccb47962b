/** How the JavaScript of the client, the console and their tests is formatted. */
export default {
  printWidth: 120,
  overrides: [{ files: "*.json", options: { printWidth: 80 } }],
};
