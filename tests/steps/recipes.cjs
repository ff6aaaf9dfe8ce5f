// Runs a query of Power Query against a real service, and prints its table as JSON:
//
//   node recipes.cjs FILE.pq NAME=TEXT…    each NAME a line of the query that its user fills in
//
// Power Query itself runs on Windows alone. Microsoft's own parser reads the query; what is evaluated
// here is as much of the language as our recipes use, and anything else is a failure.
const { readFileSync } = require("node:fs");
const { DefaultSettings, TaskUtils } = require("@microsoft/powerquery-parser");

/** What an `error` of the query raises. */
class Raised extends Error {}

const unquoted = (name) => name.replace(/^#"(.*)"$/, "$1");
const items = (wrapper) => wrapper.elements.map((element) => element.node);

/** The value of an expression; `scope` has a function for each name, since M is lazy. */
async function value(node, scope) {
    const of = (part) => value(part, scope);
    switch (node.kind) {
        case "LiteralExpression":
            return node.literalKind === "Text" ? node.literal.slice(1, -1).replaceAll('""', '"')
                : JSON.parse(node.literal);
        case "IdentifierExpression":
            return named(node.identifier.literal, scope);
        case "ParenthesizedExpression":
            return of(node.content);
        case "LetExpression":
            return value(node.expression, bound(items(node.variableList), scope));
        case "RecordExpression": {
            const fields = items(node.content).map(async (field) =>
                [unquoted(field.key.literal), await of(field.value)]);
            return Object.fromEntries(await Promise.all(fields));
        }
        case "ListExpression":
            return Promise.all(items(node.content).map(of));
        case "LogicalExpression":
            expect(node.operatorConstant.constantKind === "or", "an operator other than or");
            return (await of(node.left)) || of(node.right);
        case "EqualityExpression":
            expect(node.operatorConstant.constantKind === "=", "an operator other than =");
            return (await of(node.left)) === (await of(node.right));
        case "IfExpression":
            return of((await of(node.condition)) ? node.trueExpression : node.falseExpression);
        case "FunctionExpression": {
            const names = items(node.parameters.content).map((parameter) => parameter.name.literal);
            return (...given) =>
                value(node.expression, new Map([
                    ...scope, ...names.map((name, at) => [name, () => given[at]]),
                ]));
        }
        case "RecursivePrimaryExpression":
            return applied(node, scope);
        case "ErrorRaisingExpression":
            throw new Raised(JSON.stringify(await of(node.paired)));
        case "TypePrimaryType":
            return node.paired.primitiveTypeKind;
        default:
            throw new Error(`a ${node.kind} is more than our recipes need`);
    }
}

function named(name, scope) {
    if (scope.has(name)) {
        return scope.get(name)();
    }
    expect(name in LIBRARY, `${name} is nothing`);
    return LIBRARY[name];
}

/** A scope with these variables too, each evaluated once, when it is first asked for. */
function bound(variables, scope) {
    const inner = new Map(scope);
    for (const { key, value: expression } of variables) {
        let known;
        const given = scope.get(`given ${key.literal}`);
        inner.set(key.literal, given ?? (() => (known ??= value(expression, inner))));
    }
    return inner;
}

/** `head(argument)[field]…` */
async function applied(node, scope) {
    let result = await value(node.head, scope);
    for (const step of node.recursiveExpressions.elements) {
        if (step.kind === "InvokeExpression") {
            const given = items(step.content);
            if (node.head.identifier?.literal === "Web.Contents") {
                expect(isConstant(given[0]), "the address is an expression: no scheduled refresh");
            }
            result = await result(...(await Promise.all(given.map((one) => value(one, scope)))));
        } else if (step.kind === "FieldSelector") {
            const field = unquoted(step.content.literal);
            expect(field in result, `there is no field ${field} in ${JSON.stringify(result)}`);
            result = result[field];
        } else {
            throw new Error(`a ${step.kind} is more than our recipes need`);
        }
    }
    return result;
}

/** As the Power BI service wants it: text, or the name of text. */
const isConstant = (node) => ["LiteralExpression", "IdentifierExpression"].includes(node.kind);

function expect(held, otherwise) {
    if (!held) {
        throw new Error(otherwise);
    }
}

/** What Power Query has, as far as it is used. */
const LIBRARY = {
    "Web.Contents": async (base, { RelativePath, Query = {}, Headers, ManualStatusHandling = [] }) => {
        const url = new URL(RelativePath, `${base}/`);
        for (const [name, value] of Object.entries(Query)) {
            [value].flat().forEach((one) => url.searchParams.append(name, one));
        }
        const answer = await fetch(url, {
            redirect: "error",
            headers: {
                "User-Agent": "Microsoft.Data.Mashup (https://go.microsoft.com/fwlink/?LinkID=304225)",
                "Accept-Encoding": "gzip, deflate",
                ...Headers,
            },
        });
        const told = answer.ok || ManualStatusHandling.includes(answer.status);
        expect(told, `DataSource.Error: ${answer.status}`);
        return { text: await answer.text(), metadata: { "Response.Status": answer.status } };
    },
    "Value.Metadata": ({ metadata }) => metadata,
    "Json.Document": ({ text }) => JSON.parse(text),
    "Error.Record": (reason, message, detail) => ({ reason, message, detail }),
    "List.Transform": (list, change) => Promise.all(list.map((item) => change(item))),
    "Text.StartsWith": (text, beginning) => text.startsWith(beginning),
    "QuoteStyle.Csv": "QuoteStyle.Csv",
    "Int64.Type": "Int64",
    "Csv.Document": ({ text }, { Delimiter, Encoding, QuoteStyle }) => {
        expect(Delimiter === "," && Encoding === 65001 && QuoteStyle === "QuoteStyle.Csv", "no CSV");
        expect(text.endsWith("\r\n"), "the last line has no end");
        return text.trimEnd().split("\r\n").map((line) =>
            [...line.matchAll(/(?:^|,)(?:"((?:[^"]|"")*)"|([^,"]*))/g)]
                .map(([, quoted, bare]) => quoted?.replaceAll('""', '"') ?? bare));
    },
    "Table.PromoteHeaders": ([names, ...lines]) => {
        const rows = lines.map((line) => Object.fromEntries(names.map((name, at) => [name, line[at]])));
        return Object.assign(rows, { names });
    },
    "Table.ColumnNames": ({ names }) => names,
    "Table.TransformColumnTypes": (rows, types) => rows.map((row) => {
        const changed = { ...row };
        for (const [name, type] of types) {
            expect(name in row, `there is no column ${name}`);
            expect(type in CELLS, `${name} is of the type ${type}`);
            expect(row[name] === "" || CELLS[type].test(row[name]), `${name}: ${row[name]} is no ${type}`);
            const isNumber = type === "Int64" || type === "number";
            changed[name] = isNumber && row[name] !== "" ? Number(row[name]) : row[name];
        }
        return changed;
    }),
};

/** What a cell of each type may have. */
const CELLS = {
    text: /.*/s,
    date: /^\d{4}-\d\d-\d\d$/,
    datetimezone: /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/,
    Int64: /^\d+$/,
    number: /^\d+\.\d+$/,
};

async function main([file, ...filled]) {
    const source = readFileSync(file, "utf8");
    const task = await TaskUtils.tryLexParse(DefaultSettings, source);
    expect(TaskUtils.isParseStageOk(task), task.error?.message ?? "no expression");
    const scope = new Map();
    for (const pair of filled) {
        const [name, text] = pair.split(/=(.*)/s);
        const given = name === "Parameters" ? JSON.parse(text) : text;
        expect(source.includes(`    ${name} = `), `${file} has no line for ${name}`);
        scope.set(`given ${name}`, () => given);
    }
    console.log(JSON.stringify(await value(task.ast, scope)));
}

main(process.argv.slice(2)).catch((failure) => {
    console.log(failure.message);
    process.exit(failure instanceof Raised ? 3 : 1);
});
