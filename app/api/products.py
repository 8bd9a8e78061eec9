"""Products: GET, PUT and DELETE /v1/products/{sku}, POST /v1/products:batch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse

from app.api import answers, forms, problems
from app.api.answers import ChangeAnswer, ProductAnswer
from app.api.problems import InvalidRequest
from app.api.product_rows import MAX_ROWS, ProductFields, UploadPlan
from app.api.requests import SkuInPath
from app.bootstrap import App
from app.errors import BadInput, LookalikeError
from ingest.uploads import UploadedPictures, UploadResult, Uploads

PRODUCT_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": {"$ref": "#/components/schemas/ProductFields"}},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "additionalProperties": False,
                    "properties": {
                        "product": {
                            "description": "a JSON object as of ProductFields",
                        },
                        "pictures": {
                            "type": "array",
                            "items": {"type": "string", "format": "binary"},
                        },
                    },
                }
            },
        },
    }
}

BATCH_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/x-ndjson": {
                "schema": {"description": "a JSON object as of ProductRow in each line"}
            }
        },
    },
    "responses": {
        "200": {
            "description": "a JSON object as of ChangeAnswer in each line, one for each row",
            "content": {"application/x-ndjson": {"schema": {"type": "string"}}},
        }
    },
}


def router(app: App) -> APIRouter:
    """The endpoints of products."""
    routes = APIRouter(prefix="/v1", tags=["products"])

    @routes.get("/products/{sku}", response_model=ProductAnswer)
    def product(sku: SkuInPath) -> Response:
        """A product with its pictures."""
        stored = app.catalog.stored(sku)
        pictures = [
            {
                "sha256": each.sha256.hex(),
                "uri": each.uri,
                "thumbnail": answers.thumbnail_address(each.sha256),
            }
            for each in stored.pictures
        ]
        return _json({**answers.product_data(stored.product), "pictures": pictures})

    @routes.put(
        "/products/{sku}", response_model=ChangeAnswer, openapi_extra=PRODUCT_BODY,
        responses={201: {"model": ChangeAnswer, "description": "added"}},
    )  # fmt: skip
    async def put_product(sku: SkuInPath, request: Request) -> Response:
        """Add a product or replace its data. Fields that are left out become empty; pictures that
        are left out stay."""
        plan = UploadPlan()
        if forms.content_type(request, forms.JSON, forms.FORM) == forms.JSON:
            plan.add_product(sku, forms.parse_json(ProductFields, await request.body()), [])
        else:
            form = await forms.read_form(request, files=("pictures",), texts=("product",))
            fields = forms.parse_json(ProductFields, form.texts.get("product", "{}"), at="product")
            plan.add_product(sku, fields, [data for _, data in form.files.get("pictures", [])])
        return await run_in_threadpool(_put, app, plan)

    @routes.delete("/products/{sku}", status_code=204)
    def delete_product(sku: SkuInPath) -> Response:
        """Delete a product, and the pictures that no other product shows."""
        app.catalog.delete([sku])
        return Response(status_code=204)

    @routes.post("/products:batch", response_class=Response, openapi_extra=BATCH_BODY)
    async def write_products(request: Request) -> Response:
        """Add, change and delete products: a row in each line, and a result in each line of the
        answer. A row that is refused does not affect the others; each 64 rows are written at once.
        """
        forms.content_type(request, forms.ROWS)
        plan = _lines(await request.body())
        return await run_in_threadpool(_stream, app, plan)

    return routes


def _lines(body: bytes) -> UploadPlan:
    plan = UploadPlan()
    for number, line in enumerate(body.split(b"\n"), start=1):
        if line.strip():
            plan.add_line(number, line)
    if not plan.rows or len(plan.rows) > MAX_ROWS:
        raise InvalidRequest(
            f"The batch has {len(plan.rows):,} rows; send 1 to {MAX_ROWS:,}, each a line of JSON."
        )
    return plan


def _put(app: App, plan: UploadPlan) -> Response:
    [result] = _written(app, plan)
    if result.change == "refused":
        reasons = [result.reason or "", *(f"{name}: {why}" for name, why in result.pictures)]
        raise BadInput("Nothing was written: " + "; ".join(filter(None, reasons)) + ".")
    return _json(_change(result), 201 if result.change == "added" else 200)


def _stream(app: App, plan: UploadPlan) -> Response:
    results = _written(app, plan)
    first = next(results)  # an error before anything is written is the answer to the whole request
    return StreamingResponse(_all_lines(first, results, plan), media_type=forms.ROWS)


def _all_lines(
    first: UploadResult, rest: Iterator[UploadResult], plan: UploadPlan
) -> Iterator[bytes]:
    """The lines of the answer. After an error the remaining rows are refused with its reason."""
    yield _line(first)
    count = 1
    try:
        for result in rest:
            yield _line(result)
            count += 1
    except LookalikeError as exc:
        reason = f"not written: {problems.problem(exc)['detail']}"
        for row in plan.rows[count:]:
            sku = row.product.sku if hasattr(row, "product") else row.sku
            yield _line(UploadResult(row.line, sku, "refused", reason))


def _written(app: App, plan: UploadPlan) -> Iterator[UploadResult]:
    uploads = Uploads(app.engine, app.catalog, app.encoders, app.limits, app.admission.admitted)
    return uploads.write(plan.rows, UploadedPictures(plan.files, app.web.read))


def _change(result: UploadResult) -> dict[str, Any]:
    return {
        "line": result.line,
        "sku": result.sku,
        "change": result.change,
        "reason": result.reason,
        "pictures": [{"picture": name, "reason": reason} for name, reason in result.pictures],
    }


def _line(result: UploadResult) -> bytes:
    return answers.encode(_change(result)) + b"\n"


def _json(document: dict[str, Any], status: int = 200) -> Response:
    return Response(answers.encode(document), status, media_type=answers.JSON)
