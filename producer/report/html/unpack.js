// Packed data to texts and typed arrays.

function bytesOf(base64) {
  const text = atob(base64);
  const bytes = new Uint8Array(text.length);
  for (let k = 0; k < text.length; k++) bytes[k] = text.charCodeAt(k);
  return bytes;
}

async function unpacked(id) {
  const element = document.getElementById(id);
  const stream = new Blob([bytesOf(element.textContent)]).stream();
  element.remove();
  return new Response(stream.pipeThrough(new DecompressionStream("gzip"))).text();
}

const ARRAYS = { Float32Array, Float64Array, Int32Array };

// An object of JSON that is {type, base64} is an array of numbers.
function revived(_key, value) {
  if (value === null || typeof value !== "object" || !(value.type in ARRAYS)) return value;
  return new ARRAYS[value.type](bytesOf(value.base64).buffer);
}
