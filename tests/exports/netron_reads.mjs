// Reads graph files as netron does, without its window: node netron_reads.mjs FOLDER FILE...
// Prints for each file what its nodes are, as JSON.
import fs from 'node:fs';
import path from 'node:path';

const [, , folder, ...files] = process.argv;
const load = (name) => import(path.join(folder, `${name}.js`));
const { ModelFactoryService } = await load('view');
const { FileStream } = await load('node');

const throws = (error) => {
    throw error;
};

// Ops of a body, and of those that its nodes call or name.
const collect = (body, ops) => {
    for (const node of body.nodes) {
        ops.add(node.type.name);
        const named = node.attributes.map((attribute) => attribute.value);
        [node.type, ...named].filter((value) => value?.nodes).forEach((value) => collect(value, ops));
    }
};

const found = [];
for (const file of files) {
    const { size, mtimeMs } = fs.statSync(file);
    const service = new ModelFactoryService({ require: load, event: () => {}, exception: throws });
    const model = await service.open({
        identifier: file,
        stream: new FileStream(file, 0, size, mtimeMs),
        entries: new Map(),
        require: load,
        asset: async (name) => fs.readFileSync(path.join(folder, name), 'utf-8'),
        error: throws,
    });
    const ops = new Set();
    model.modules.forEach((body) => collect(body, ops));
    found.push({ format: model.format, ops: [...ops] });
}
console.log(JSON.stringify(found));
