// Starts Swagger UI on this host's own description, with forms that are empty until the reader fills them in.
"use strict";

// The origin in the description's code samples.
const SAMPLE_ORIGIN = "http://127.0.0.1:8888";

// Shows an operation's `x-codeSamples`, which Swagger UI does not know, between its parameters and its responses.
const codeSamples = (Parameters, { React: { createElement: element, Fragment } }) => (props) => {
  const samples = props.operation.get("x-codeSamples")?.toJS() ?? [];
  const blocks = samples.map(({ label, source }) =>
    element("details", { key: label, className: "opblock-section opblock-description-wrapper" },
      element("summary", null, `curl: ${label}`),
      element("pre", { className: "microlight" }, source.replace(SAMPLE_ORIGIN, location.origin))));
  return element(Fragment, null, element(Parameters, props), ...blocks);
};

// Leaves fields empty that have no default: a form with a made-up value in each field is never a valid request. A body
// that is not a form, which has a media type here, is the unchanged example.
const emptyFields = (Component, { React }) => (props) => {
  const getSampleSchema = (schema, mediaType, config, example) => {
    if (mediaType) {
      return example ?? props.fn.getSampleSchema(schema, mediaType, config);
    }
    return (schema.toJS?.() ?? schema).default ?? "";
  };
  return React.createElement(Component, { ...props, fn: { ...props.fn, getSampleSchema } });
};

const withoutParameterExamples = (description) => {
  for (const operation of Object.values(description.paths).flatMap(Object.values)) {
    for (const parameter of operation.parameters ?? []) {
      delete parameter.examples; // Swagger UI would fill in the first; the code samples have them all.
    }
  }
  return description;
};

const start = async () => {
  const reply = await fetch("/openapi.json");
  window.ui = SwaggerUIBundle({
    spec: withoutParameterExamples(await reply.json()),
    dom_id: "#swagger-ui",
    deepLinking: true,
    defaultModelsExpandDepth: 0,
    displayRequestDuration: true,
    syntaxHighlight: false,
    tryItOutEnabled: true,
    validatorUrl: null,
    plugins: [
      () => ({
        components: { ParameterIncludeEmpty: () => null },
        wrapComponents: { parameters: codeSamples, RequestBody: emptyFields, parameterRow: emptyFields },
      }),
    ],
  });
};

start();
