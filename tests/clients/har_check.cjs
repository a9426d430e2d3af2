// Validates a HAR file on standard input against the schemas of har-validator.
const validator = require('har-validator');
let text = '';
process.stdin.on('data', (piece) => { text += piece; });
process.stdin.on('end', async () => {
  const file = JSON.parse(text);
  try {
    await validator.har(file);
    for (const entry of file.log.entries) {
      await validator.entry(entry);
      await validator.request(entry.request);
      await validator.response(entry.response);
      await validator.timings(entry.timings);
    }
    console.log(JSON.stringify({ entries: file.log.entries.length }));
  } catch (error) {
    console.error(JSON.stringify(error.errors ?? String(error)));
    process.exit(1);
  }
});
