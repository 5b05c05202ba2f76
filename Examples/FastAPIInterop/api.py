"""The API: takes a video in, hands it to the queue, and answers at once. It does not know who does the work.

    uvicorn api:api --port 8000
"""
import os
import uuid

from celery.result import AsyncResult
from fastapi import FastAPI, Request

from tasks import DATA, app, process_video_heavy

api = FastAPI()


@api.post("/upload", status_code=202)
async def upload(request: Request):
    video_id = str(uuid.uuid4())
    os.makedirs(os.path.join(DATA, video_id))
    with open(os.path.join(DATA, video_id, "input"), "wb") as file:
        async for chunk in request.stream():
            file.write(chunk)
    task = process_video_heavy.delay(video_id)
    return {"task_id": task.id, "video_id": video_id}


@api.get("/tasks/{task_id}")
def state(task_id: str):
    result = AsyncResult(task_id, app=app)
    answer = {"state": result.state}
    if result.successful():
        answer["result"] = result.result
    elif result.failed():
        answer["error"] = str(result.result)
    elif result.state == "PROGRESS":
        answer["progress"] = result.info
    return answer
