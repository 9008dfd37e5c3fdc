"""Courses: for anyone to read, for admins to change."""

import uuid
from typing import Annotated

from fastapi import Depends, Query, Request

from dependencies import Admin, services_of
from models.course import Course, CourseBatch, CourseIn, CourseList, CoursePage, CourseUpdate
from services.course_service import CourseService
from tristore.http.headers import Located, sends
from tristore.http.parameters import PageSize
from tristore.http.prefixed import PrefixedRouter
from tristore.http.problems import problems

router = PrefixedRouter(prefix="/courses", tags=["courses"], about=__doc__)


async def get_courses(request: Request) -> CourseService:
    return services_of(request).courses


Skip = Annotated[int, Query(ge=0, le=100_000)]
Courses = Annotated[CourseService, Depends(get_courses)]


@router.get("", summary="Courses, newest first", responses=problems(503))
async def list_courses(courses: Courses, skip: Skip = 0, limit: PageSize = 20) -> CoursePage:
    return await courses.page(skip, limit)


@router.get("/{course_id}", summary="A course", responses=problems(404, 503))
async def read_course(courses: Courses, course_id: uuid.UUID) -> Course:
    return await courses.read(course_id)


@router.post("", status_code=201, summary="Add a course", responses=problems(403) | {201: sends("Location")})
async def create_course(courses: Courses, admin: Admin, new: CourseIn, located: Located) -> Course:
    [course] = await courses.create([new])
    return located.at("/courses/{id}", course)


@router.post("/batch", status_code=201, summary="Add many courses, or none", responses=problems(403))
async def create_courses(courses: Courses, admin: Admin, batch: CourseBatch) -> CourseList:
    """If a row is not valid, nothing is added; the 422 names each such field, as in `courses.1.title`."""
    return CourseList(items=await courses.create(batch.courses))


@router.patch("/{course_id}", summary="Change what is sent, keep the rest", responses=problems(403, 404))
async def update_course(courses: Courses, admin: Admin, course_id: uuid.UUID, update: CourseUpdate) -> Course:
    return await courses.update(course_id, update)


@router.delete("/{course_id}", status_code=204, summary="Delete a course", responses=problems(403, 404))
async def delete_course(courses: Courses, admin: Admin, course_id: uuid.UUID) -> None:
    """It is gone from sight; what names it keeps doing so."""
    await courses.delete(course_id)
