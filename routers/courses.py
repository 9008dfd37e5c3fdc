"""Courses: for anyone to read, for admins to change."""

import uuid
from typing import Annotated

from fastapi import Depends, Query, Request, Response

from dependencies import Admin, KeyOfCaller, note_caller, services_of
from models.course import Course, CourseBatch, CourseIn, CourseList, CoursePage, CourseUpdate
from services.course_service import CourseService
from tristore.http.anonymous import BY_ADDRESS
from tristore.http.conditional import IfMatch, tagged
from tristore.http.headers import Located, sends
from tristore.http.parameters import Digits, PageSize
from tristore.http.prefixed import PrefixedRouter
from tristore.http.problems import problems

router = PrefixedRouter(prefix="/courses", tags=["courses"], about=__doc__, max_body_bytes=2**20)


async def get_courses(request: Request) -> CourseService:
    return services_of(request).courses


Skip = Annotated[int, Query(ge=0, le=100_000), Digits]
Courses = Annotated[CourseService, Depends(get_courses)]


@router.get(
    "", summary="Courses, newest first", responses=problems(429, 503), dependencies=[BY_ADDRESS, Depends(note_caller)]
)
async def list_courses(courses: Courses, skip: Skip = 0, limit: PageSize = 20) -> CoursePage:
    return await courses.page(skip, limit)


@router.get(
    "/{course_id}",
    summary="A course",
    responses=problems(404, 429, 503) | {200: sends("ETag")},
    dependencies=[BY_ADDRESS],
)
async def read_course(courses: Courses, course_id: uuid.UUID, response: Response) -> Course:
    """Its `ETag` is of what admins change, and of nothing else that is shown."""
    return tagged(response, await courses.read(course_id))


@router.post(
    "", status_code=201, summary="Add a course", responses=problems(403, 409) | {201: sends("Location", "ETag")}
)
async def create_course(
    courses: Courses, admin: Admin, key: KeyOfCaller, new: CourseIn, located: Located, response: Response
) -> Course:
    [course] = (await courses.create(admin.id, CourseBatch(courses=[new]), key)).items
    return tagged(response, located.at("/courses/{id}", course))


@router.post("/batch", status_code=201, summary="Add many courses, or none", responses=problems(403, 409))
async def create_courses(courses: Courses, admin: Admin, key: KeyOfCaller, batch: CourseBatch) -> CourseList:
    """If a row is not valid, nothing is added; the 422 names each such field, as in `courses.1.title`."""
    return await courses.create(admin.id, batch, key)


@router.patch(
    "/{course_id}",
    summary="Change what is sent, keep the rest",
    responses=problems(403, 404, 412) | {200: sends("ETag")},
)
async def update_course(
    courses: Courses, admin: Admin, tags: IfMatch, course_id: uuid.UUID, update: CourseUpdate, response: Response
) -> Course:
    return tagged(response, await courses.update(course_id, update, tags))


@router.delete("/{course_id}", status_code=204, summary="Delete a course", responses=problems(403, 404, 412))
async def delete_course(courses: Courses, admin: Admin, tags: IfMatch, course_id: uuid.UUID) -> None:
    """It is gone from sight; what names it keeps doing so."""
    await courses.delete(course_id, tags)
